"""Figures on accuracy, against scikit-learn's and published ones."""

from __future__ import annotations

import numpy as np
import pytest
from calibrated_logits import draw_logits
from scipy.special import softmax
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from flowers_batch.classifier.calibration import TopLabels
from flowers_batch.classifier.evaluation import auroc, compare, evaluate, wilson_interval


def test_figures_are_those_of_scikit_learn():
    targets, logits = draw_logits(500)
    found = evaluate(TopLabels(targets, logits.argmax(1), softmax(logits, 1).max(1)), list("abcd"))
    columns = precision_recall_fscore_support(targets, logits.argmax(1))
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == targets).mean())
    assert found["macro_f1"] == pytest.approx(columns[2].mean())
    for number, name in enumerate("abcd"):
        values = [column[number] for column in columns]
        expected = dict(zip(("precision", "recall", "f1", "photos"), values, strict=True))
        assert found["per_class"][name] == pytest.approx(expected)


def test_class_without_predictions_or_photos_counts_as_zero():
    found = evaluate(TopLabels(np.array([0, 0, 1]), np.zeros(3, int), np.ones(3)), list("abc"))
    assert found["per_class"]["b"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "photos": 1}
    assert found["per_class"]["c"]["f1"] == 0.0


def test_wilson_interval_is_the_published_one():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I: 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx([0.2553, 0.3662], abs=1e-4)
    assert wilson_interval(0, 10)[0] == 0.0 and wilson_interval(10, 10)[1] == 1.0


def test_auroc_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    known, unknown = random.integers(3, 9, 50), random.integers(0, 7, 40)
    expected = roc_auc_score([1] * 50 + [0] * 40, np.concatenate([known, unknown]))
    assert auroc(known, unknown) == pytest.approx(expected)
    assert auroc(known, known[:0]) is None


def outcomes_of(both: int, better: int, worse: int, neither: int):
    """Return two classifiers' outcomes, by how many photos both, only one or neither labels correctly."""
    counts = (both, better, worse, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_paired_comparison_is_the_published_one():
    """Method 10 gives 0.0569 to 0.3404 in an example of Newcombe (1998); McNemar's exact test is computed by hand."""
    found = compare(*outcomes_of(36, 12, 2, 0))
    assert (found["photos"], found["better"], found["worse"], found["gain"]) == (50, 12, 2, 0.2)
    assert found["interval95"] == pytest.approx([0.0569, 0.3404], abs=5e-5)
    assert found["p_value"] == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert (found["after"]["accuracy"], found["before"]["accuracy"]) == (0.96, 0.76)


def test_interval_of_a_gain_covers_it_in_95_percent():
    random, shares = np.random.default_rng(0), np.array([0.7, 0.15, 0.05, 0.1])
    intervals = np.array([compare(*outcomes_of(*random.multinomial(60, shares)))["interval95"] for _ in range(400)])
    assert ((intervals[:, 0] <= 0.1) & (intervals[:, 1] >= 0.1)).mean() > 0.92


def test_no_observed_difference_still_has_an_interval():
    found = compare(*outcomes_of(10, 0, 0, 0))
    assert found["p_value"] == 1 and found["interval95"][0] < -0.2 < 0.2 < found["interval95"][1]
