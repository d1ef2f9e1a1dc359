"""Accuracy of a classifier: per class, with a confidence interval, and against another classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import TopLabels


def evaluate(top: TopLabels, classes: Sequence[str]) -> dict[str, Any]:
    """Return the accuracy of predicted labels, as `metrics.json` has it for each split.

    Args:
        top: The labels.
        classes: The classes' names.

    Returns:
        `photos`, `accuracy`, its `interval95`, `macro_f1`, `confusion` (the cells of the confusion matrix that are not
        0, each with the number of its true class, that of the predicted class, and its photos), and `per_class`:
        `precision`, `recall`, `f1` (0 where undefined) and `photos`. `macro_f1` is of the classes that have photos.
    """
    from sklearn.metrics import precision_recall_fscore_support

    numbers = range(len(classes))
    figures = precision_recall_fscore_support(top.targets, top.labels, labels=numbers, zero_division=0)
    correct = int(top.correct.sum())
    cells, photos_of_cell = np.unique(top.targets * len(classes) + top.labels, return_counts=True)
    counted = zip(cells.tolist(), photos_of_cell.tolist(), strict=True)
    return {
        "photos": len(top),
        "accuracy": correct / len(top),
        "interval95": wilson_interval(correct, len(top)),
        "macro_f1": float(figures[2][figures[3] > 0].mean()),
        "confusion": [[cell // len(classes), cell % len(classes), photos] for cell, photos in counted],
        "per_class": {
            name: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "photos": int(photos)}
            for name, precision, recall, f1, photos in zip(classes, *figures, strict=True)
        },
    }


def wilson_interval(correct: int, total: int) -> list[float]:
    """Return the 95% confidence interval of a proportion, which holds for small counts too.

    The score interval of Wilson, 1927, "Probable inference, the law of succession, and statistical inference".
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return [float(interval.low), float(interval.high)]


def compare(correct: NDArray[np.bool_], correct_before: NDArray[np.bool_]) -> dict[str, Any]:
    """Compare two classifiers on the same photos, of which none is a near-duplicate of another.

    Args:
        correct: bool [N]: which photos the new classifier labels correctly.
        correct_before: bool [N]: which photos the old one labels correctly.

    Returns:
        - `photos`: N.
        - `after` and `before`: `accuracy`, `interval95` and `photos` of each.
        - `better` and `worse`: photos that only the new one, or only the old one, labels correctly.
        - `gain`: the difference in accuracy, and its `interval95` (Newcombe, 1998, "Improved confidence intervals for
          the difference between binomial proportions based on paired data", method 10).
        - `p_value` of the null hypothesis that both are equally good (McNemar, 1947, "Note on the sampling error of the
          difference between correlated proportions or percentages"; the exact, binomial test).
    """
    from scipy.stats import binomtest

    photos, accuracy, accuracy_before = len(correct), float(correct.mean()), float(correct_before.mean())
    low, high = wilson_interval(int(correct.sum()), photos)
    low_before, high_before = wilson_interval(int(correct_before.sum()), photos)
    better, worse = int((correct & ~correct_before).sum()), int((correct_before & ~correct).sum())
    gain, correlation = (better - worse) / photos, _correlation(correct, correct_before)

    def distance(one: float, other: float) -> float:
        return math.sqrt(one**2 - 2 * correlation * one * other + other**2)

    return {
        "photos": photos,
        "after": {"accuracy": accuracy, "interval95": [low, high], "photos": photos},
        "before": {"accuracy": accuracy_before, "interval95": [low_before, high_before], "photos": photos},
        "better": better,
        "worse": worse,
        "gain": gain,
        "interval95": [
            gain - distance(accuracy - low, high_before - accuracy_before),
            gain + distance(high - accuracy, accuracy_before - low_before),
        ],
        "p_value": float(binomtest(better, better + worse).pvalue) if better + worse else 1.0,
    }


def _correlation(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the phi coefficient of two outcomes, with the continuity correction of Newcombe's method 10."""
    both, neither = int((one & other).sum()), int((~one & ~other).sum())
    excess = float(both * neither - int((one & ~other).sum()) * int((other & ~one).sum()))
    spread = float(one.sum()) * float((~one).sum()) * float(other.sum()) * float((~other).sum())
    if excess > 0:
        excess = max(0.0, excess - len(one) / 2)
    return excess / math.sqrt(spread) if spread else 0.0


def auroc(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float | None:
    """Return the area under the ROC curve of scores that should tell known from unknown; None without any of either."""
    from sklearn.metrics import roc_auc_score

    if not (len(known) and len(unknown)):
        return None
    is_known = np.repeat([True, False], [len(known), len(unknown)])
    return float(roc_auc_score(is_known, np.concatenate([known, unknown])))
