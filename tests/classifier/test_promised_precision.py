"""A promised precision is kept for photos that took no part, in nearly all draws."""

from __future__ import annotations

import numpy as np
import pytest

from flowers_batch.classifier.calibration import TopLabels
from flowers_batch.classifier.promised_precision import lower_bound, photos_needed, promise_precision


def draw(photos: int, random: np.random.Generator, certainty: float = 5.0) -> tuple[TopLabels, np.ndarray]:
    """Draw labels whose probabilities are calibrated, each of another group."""
    probabilities = random.beta(certainty, 1, photos).astype(np.float32)
    correct = random.random(photos) < probabilities
    return TopLabels(correct.astype(int), np.ones(photos, int), probabilities), np.arange(photos)


def labels(correct: list[bool], probabilities: list[float]) -> TopLabels:
    return TopLabels(np.array(correct, int), np.ones(len(correct), int), np.array(probabilities, np.float32))


@pytest.mark.parametrize(("photos", "certainty"), [(150, 5.0), (600, 5.0), (600, 12.0)])
def test_promise_is_kept_for_other_photos(photos, certainty):
    """The precision above a threshold is known exactly here: the mean of the probabilities there."""
    random = np.random.default_rng(0)
    population, _ = draw(40_000, random, certainty)
    broken = found = 0
    for _ in range(200):
        promise = promise_precision(*draw(photos, random, certainty), 0.9)
        kept = population.probabilities[population.probabilities >= promise.threshold]
        broken += len(kept) > 0 and kept.mean() < 0.9
        found += len(kept) > 0
    assert broken <= 18  # 5% of 200 are 10; more than 18 have a chance below 1%
    assert found > 100


def test_fifty_nine_photos_without_an_error_promise_95_percent():
    sure = [0.99] * 59
    assert promise_precision(labels([True] * 59, sure), np.arange(59), 0.95).bound == pytest.approx(0.95, abs=1e-3)
    assert promise_precision(labels([True] * 58, sure[1:]), np.arange(58), 0.95).threshold > 1
    assert promise_precision(labels([True] * 58 + [False], sure), np.arange(59), 0.95).bound is None


def test_near_duplicates_count_once():
    top = labels([True] * 120, [0.99] * 120)
    assert promise_precision(top, np.arange(120), 0.95).kept == 120
    copies = promise_precision(top, np.arange(120) // 3, 0.95)
    assert (copies.photos, copies.kept, copies.bound) == (40, 0, None)


def test_equal_probabilities_are_kept_together_or_not_at_all():
    """The labels of the threshold that passes first are as sure as many wrong ones."""
    top = labels([True] * 95 + [False] * 60, [0.9] * 155)
    assert promise_precision(top, np.arange(155), 0.95).threshold > 1


def test_more_errors_raise_the_threshold():
    probabilities = np.linspace(0.999, 0.5, 400).tolist()
    right = promise_precision(labels([True] * 400, probabilities), np.arange(400), 0.95)
    some = promise_precision(labels([True] * 200 + [False, True] * 100, probabilities), np.arange(400), 0.95)
    assert right.threshold == pytest.approx(0.5) and right.kept == 400
    assert 0.7 < some.threshold < 0.999 and some.bound >= 0.95 and some.kept < 240


def test_bound_is_that_of_clopper_and_pearson():
    from scipy.stats import binomtest

    expected = binomtest(90, 100, alternative="greater").proportion_ci(0.95, method="exact").low
    assert lower_bound(90, 100) == pytest.approx(expected)
    assert lower_bound(0, 10) == 0


def test_certainty_cannot_be_promised():
    top, groups = draw(500, np.random.default_rng(0))
    assert promise_precision(top, groups, 1.0).threshold > 1
    assert photos_needed(top, groups, 1.0) is None


def test_more_photos_of_the_same_kind_are_enough():
    random = np.random.default_rng(3)
    few, groups = draw(60, random)
    assert promise_precision(few, groups, 0.95).bound is None
    needed = photos_needed(few, groups, 0.95)
    assert needed and 60 < needed < 5000
    assert photos_needed(few, groups, 0.8) < needed
    kept = [promise_precision(*draw(2 * needed, random), 0.95).bound is not None for _ in range(20)]
    assert sum(kept) > 10


def test_empty_predictions_promise_nothing():
    promise = promise_precision(labels([], []), np.array([], int), 0.95)
    assert promise.threshold > 1 and promise.photos == 0
