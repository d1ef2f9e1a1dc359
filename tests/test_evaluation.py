"""Figures on probabilities whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from flowers_batch.classifier.evaluation import (
    at_threshold,
    auroc,
    calibration_curve,
    calibration_error,
    compare,
    evaluate,
    find_threshold,
    fit_temperature,
    log_loss,
    wilson_interval,
)


def drawn(count: int, heat: float = 1.0, seed: int = 0):
    """Targets, and logits of which `heat` times too large are told: drawn so that a softmax of the true ones holds."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, 4))
    shares = softmax(logits)
    targets = (random.random((count, 1)) > np.cumsum(shares, 1)).sum(1)
    return targets, (logits * heat).astype(np.float32)


def softmax(logits):
    values = np.exp(logits - logits.max(1, keepdims=True))
    return values / values.sum(1, keepdims=True)


def test_figures_are_scikit_learns():
    targets, logits = drawn(500)
    told = evaluate(targets, softmax(logits), list("abcd"))
    columns = precision_recall_fscore_support(targets, logits.argmax(1))
    assert told["accuracy"] == pytest.approx((logits.argmax(1) == targets).mean())
    assert told["macro_f1"] == pytest.approx(columns[2].mean())
    for number, name in enumerate("abcd"):
        values = [column[number] for column in columns]
        expected = dict(zip(("precision", "recall", "f1", "photos"), values, strict=True))
        assert told["per_class"][name] == pytest.approx(expected)


def test_a_class_that_is_never_told_or_has_no_photos_counts_as_zero():
    told = evaluate(np.array([0, 0, 1]), np.eye(3)[[0, 0, 0]], list("abc"))
    assert told["per_class"]["b"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "photos": 1}
    assert told["per_class"]["c"]["f1"] == 0.0


def test_wilson_interval_is_the_published_one():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I: 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert wilson_interval(0, 10)[0] == 0.0


@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
def test_temperature_is_found_and_nine_of_ten_that_are_ninety_percent_sure_are_right(heat):
    temperature = fit_temperature(*reversed(drawn(5000, heat)))
    assert temperature == pytest.approx(heat, rel=0.1)
    targets, logits = drawn(20_000, heat, seed=1)
    curve = calibration_curve(targets, softmax(logits / temperature))
    assert calibration_error(curve) < 0.02
    ninth = next(point for point in curve if 0.8 <= point["probability"] < 0.9)
    assert ninth["accuracy"] == pytest.approx(ninth["probability"], abs=0.03)
    if heat != 1:
        assert calibration_error(calibration_curve(targets, softmax(logits))) > 0.05


def test_log_loss_of_impossible_and_certain():
    assert log_loss(np.array([[0.0, 0.0]]), np.array([0])) == pytest.approx(np.log(2))
    assert log_loss(np.array([[1e4, 0.0]]), np.array([0])) == 0.0


def test_threshold_is_the_lowest_that_keeps_the_precision():
    sure = np.array([0.99, 0.9, 0.8, 0.7, 0.7, 0.6, 0.55])
    right = np.array([1, 1, 0, 1, 1, 0, 0], bool)
    probabilities = np.stack([sure, 1 - sure], 1)
    targets = np.where(right, 0, 1)
    assert find_threshold(targets, probabilities, 0.8) == 0.7
    assert at_threshold(targets, probabilities, 0.7) == pytest.approx({"precision": 0.8, "coverage": 5 / 7})
    assert find_threshold(targets, probabilities, 1.0) == 0.9
    # Of equally sure ones, all or none are taken.
    assert find_threshold(np.array([0, 1]), np.array([[0.7, 0.3], [0.7, 0.3]]), 0.9) > 1
    assert at_threshold(np.array([1]), np.array([[0.7, 0.3]]), 2.0) == {"precision": None, "coverage": 0.0}


def test_auroc_is_scikit_learns():
    random = np.random.default_rng(0)
    known, strange = random.integers(3, 9, 50), random.integers(0, 7, 40)
    expected = roc_auc_score([1] * 50 + [0] * 40, np.concatenate([known, strange]))
    assert auroc(known, strange) == pytest.approx(expected)
    assert auroc(known, known[:0]) is None


def outcomes_of(both: int, better: int, worse: int, neither: int):
    """Two classifiers' outcomes, by how many photos both, one or neither has right."""
    counts = (both, better, worse, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_comparison_in_pairs_is_as_published():
    """The example of Newcombe (1998), whose method 10 gives 0.0569 to 0.3404; McNemar's exact test by hand."""
    found = compare(*outcomes_of(36, 12, 2, 0))
    assert (found["photos"], found["better"], found["worse"], found["gain"]) == (50, 12, 2, 0.2)
    assert found["interval95"] == pytest.approx([0.0569, 0.3404], abs=5e-5)
    assert found["p_value"] == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert (found["after"]["accuracy"], found["before"]["accuracy"]) == (0.96, 0.76)


def test_interval_of_a_gain_holds_it_as_often_as_it_says():
    random, shares = np.random.default_rng(0), np.array([0.7, 0.15, 0.05, 0.1])
    intervals = np.array([compare(*outcomes_of(*random.multinomial(60, shares)))["interval95"] for _ in range(400)])
    assert ((intervals[:, 0] <= 0.1) & (intervals[:, 1] >= 0.1)).mean() > 0.92


def test_no_difference_is_not_certain_to_be_none():
    found = compare(*outcomes_of(10, 0, 0, 0))
    assert found["p_value"] == 1 and found["interval95"][0] < -0.2 < 0.2 < found["interval95"][1]
