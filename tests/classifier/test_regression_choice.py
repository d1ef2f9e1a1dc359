"""Cross-validation chooses the normalisation and the strength that suit the codes."""

from __future__ import annotations

import numpy as np
import pytest

from flowers_batch.classifier.labelled_codes import LabelledCodes, labelled_codes_of
from flowers_batch.classifier.regression_choice import choose_regression
from flowers_batch.progress import NULL_REPORTER

WIDTH, CLASSES = 40, 3


def draw_codes(count: int, noise: float, seed: int = 0) -> LabelledCodes:
    """Draw codes whose values, all of similar size, are near those of their class."""
    centres = np.random.default_rng(9).gamma(2, 1, (CLASSES, WIDTH))
    random = np.random.default_rng(seed)
    targets = random.integers(0, CLASSES, count)
    return labelled_codes_of(random.normal(centres[targets], noise).clip(0).astype(np.float32), targets)


def with_random_lengths(labelled: LabelledCodes) -> LabelledCodes:
    """Return codes that differ in length by a factor of a hundred, as if by the photos' contrast."""
    lengths = np.exp(np.random.default_rng(1).uniform(-2.3, 2.3, (len(labelled), 1)))
    return labelled_codes_of((labelled.array() * lengths).astype(np.float32), labelled.targets)


def with_large_offsets(labelled: LabelledCodes) -> LabelledCodes:
    """Return codes most of whose values are large, and alike for all photos; a few small values tell classes apart."""
    offsets = np.where(np.arange(WIDTH) < WIDTH // 2, 3000, 0)
    noise = np.random.default_rng(1).normal(0, 300, (len(labelled), WIDTH)) * (offsets > 0)
    return labelled_codes_of((labelled.array() + offsets + noise).astype(np.float32), labelled.targets)


@pytest.mark.parametrize(
    ("distort", "expected"), [(with_random_lengths, {"l2", "sqrt_l2"}), (with_large_offsets, {"standardized"})]
)
def test_choice_of_normalization_follows_the_codes(distort, expected):
    assert choose_regression(distort(draw_codes(150, 1.0)), CLASSES, 0, NULL_REPORTER).normalization in expected


def test_normalizations_within_noise_leave_the_first():
    chosen = choose_regression(draw_codes(60, 0.7), CLASSES, 0, NULL_REPORTER)
    assert chosen.normalization == "sqrt_l2"


def test_codes_of_zeros_do_not_disturb_the_choice():
    codes = draw_codes(90, 0.7).array().copy()
    codes[::15] = 0
    codes[:, 3] = 0
    labelled = labelled_codes_of(codes, draw_codes(90, 0.7).targets)
    assert choose_regression(labelled, CLASSES, 0, NULL_REPORTER).C > 0


def test_c_follows_the_noise():
    noisy, clear = (choose_regression(draw_codes(240, noise), CLASSES, 0, NULL_REPORTER) for noise in (6.0, 0.5))
    assert noisy.normalization == clear.normalization
    assert noisy.C < clear.C


def test_copies_in_one_fold_do_not_make_a_c_look_good():
    """Noise that is repeated ten times can be learnt by heart: only folds that share copies would think well of it."""
    random = np.random.default_rng(3)
    codes = np.repeat(random.normal(0, 1, (40, 200)), 10, 0).astype(np.float32)
    targets = np.repeat(random.integers(0, 2, 40), 10)
    together = labelled_codes_of(codes, targets, np.repeat(np.arange(40), 10))
    apart = labelled_codes_of(codes, targets)
    assert choose_regression(together, 2, 0, NULL_REPORTER).C < choose_regression(apart, 2, 0, NULL_REPORTER).C


def test_classes_with_one_photo_each_get_a_regression():
    labelled = labelled_codes_of(np.eye(3, 8, dtype=np.float32), np.arange(3))
    assert choose_regression(labelled, CLASSES, 0, NULL_REPORTER).C > 0
