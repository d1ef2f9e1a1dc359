"""How good probabilities are: accuracy and its interval, calibration, thresholds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.96
_BINS = 10  # of a calibration curve: a bin of 90% to 100% is what a person asks for
_TEMPERATURES = (0.05, 20.0)
_NEVER = 2.0  # as a threshold: above any probability


def evaluate(targets: NDArray[np.int_], probabilities: NDArray[np.float32], classes: list[str]) -> dict[str, Any]:
    """How well probabilities [N, classes] fit the true classes int [N]: what `metrics.json` says of a side."""
    count = len(classes)
    predicted = probabilities.argmax(1)
    matrix = np.bincount(targets * count + predicted, minlength=count**2).reshape(count, count)
    right, true, told = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    precision, recall = right / np.maximum(told, 1), right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(true + told, 1)
    return {
        "photos": len(targets),
        "accuracy": float(right.sum() / len(targets)),
        "interval95": wilson_interval(int(right.sum()), len(targets)),
        "macro_f1": float(f1.mean()),
        "confusion_matrix": matrix.tolist(),
        "per_class": {
            name: {
                "precision": float(precision[number]),
                "recall": float(recall[number]),
                "f1": float(f1[number]),
                "photos": int(true[number]),
            }
            for number, name in enumerate(classes)
        },
    }


def wilson_interval(right: int, total: int) -> list[float]:
    """The 95% interval of a proportion (Wilson, 1927, "Probable inference"), which holds for small counts too."""
    share = right / total
    centre = share + _Z95**2 / (2 * total)
    spread = _Z95 * np.sqrt(share * (1 - share) / total + _Z95**2 / (4 * total**2))
    width = 1 + _Z95**2 / total
    # At the ends, rounding must not leave the share itself outside.
    return [
        max(0.0, min(share, float((centre - spread) / width))),
        min(1.0, max(share, float((centre + spread) / width))),
    ]


def compare(right: NDArray[np.bool_], right_before: NDArray[np.bool_]) -> dict[str, Any]:
    """How one classifier does against another on the same photos, of which none is a copy of another.

    Args:
        right: bool [N]: which photos one labels rightly.
        right_before: Likewise, of the other.

    Returns:
        `after` and `before`: `accuracy`, `interval95` and `photos` of the one and the other; `better`, photos that only
        the one has right, and `worse`, those that only the other has; `gain`, the difference in accuracy; its
        `interval95` (Newcombe, 1998, "Improved confidence intervals for the difference between binomial proportions
        based on paired data", method 10); and `p_value`, the chance of so uneven a `better` and `worse`, were both as
        good (McNemar, 1947, "Note on the sampling error of the difference between correlated proportions", exact).
    """
    from scipy.stats import binomtest

    photos, share, share_before = len(right), float(right.mean()), float(right_before.mean())
    low, high = wilson_interval(int(right.sum()), photos)
    low_before, high_before = wilson_interval(int(right_before.sum()), photos)
    better, worse = int((right & ~right_before).sum()), int((right_before & ~right).sum())
    gain, alike = (better - worse) / photos, _correlation(right, right_before)

    def distance(one: float, other: float) -> float:
        return math.sqrt(one**2 - 2 * alike * one * other + other**2)

    return {
        "photos": photos,
        "after": {"accuracy": share, "interval95": [low, high], "photos": photos},
        "before": {"accuracy": share_before, "interval95": [low_before, high_before], "photos": photos},
        "better": better,
        "worse": worse,
        "gain": gain,
        "interval95": [
            gain - distance(share - low, high_before - share_before),
            gain + distance(high - share, share_before - low_before),
        ],
        "p_value": float(binomtest(better, better + worse).pvalue) if better + worse else 1.0,
    }


def _correlation(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """The correlation of two outcomes, less what chance may have added (as Newcombe's method 10 takes it)."""
    both, neither = int((one & other).sum()), int((~one & ~other).sum())
    excess = float(both * neither - int((one & ~other).sum()) * int((other & ~one).sum()))
    spread = float(one.sum()) * float((~one).sum()) * float(other.sum()) * float((~other).sum())
    if excess > 0:
        excess = max(0.0, excess - len(one) / 2)
    return excess / math.sqrt(spread) if spread else 0.0


def log_loss(logits: NDArray[np.floating], targets: NDArray[np.int_], temperature: float = 1.0) -> float:
    """The mean of minus the logarithm of the true classes' probabilities.

    Args:
        logits: [N, classes].
        targets: int [N].
        temperature: What the logits are divided by.
    """
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(targets)), targets]).mean())


def fit_temperature(logits: NDArray[np.floating], targets: NDArray[np.int_]) -> float:
    """The temperature that makes probabilities mean what they say (Guo et al., 2017, "On Calibration of Modern Neural
    Networks"): the one of the least log loss on photos that were not trained on.

    Args:
        logits: [N, classes].
        targets: int [N].
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda exponent: log_loss(logits, targets, np.exp(exponent)), bounds=np.log(_TEMPERATURES), method="bounded"
    )
    return float(np.exp(found.x))


def calibration_curve(targets: NDArray[np.int_], probabilities: NDArray[np.float32]) -> list[dict[str, Any]]:
    """How often labels were right, by how sure they were.

    Args:
        targets: int [N].
        probabilities: [N, classes].

    Returns:
        For each tenth of certainty that has photos: `photos`, their mean `probability`, their `accuracy`.
    """
    sure, right = outcomes(targets, probabilities)
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    return [
        {
            "photos": int((bins == number).sum()),
            "probability": float(sure[bins == number].mean()),
            "accuracy": float(right[bins == number].mean()),
        }
        for number in np.unique(bins)
    ]


def calibration_error(curve: list[dict[str, Any]]) -> float:
    """The expected calibration error of a curve: how far accuracy is from certainty, in the mean over photos."""
    photos = sum(point["photos"] for point in curve)
    return sum(point["photos"] * abs(point["accuracy"] - point["probability"]) for point in curve) / photos


def find_threshold(targets: NDArray[np.int_], probabilities: NDArray[np.float32], precision: float) -> float:
    """The lowest probability at and above which labels are right so often; above 1 where none is.

    Args:
        targets: int [N].
        probabilities: [N, classes].
        precision: The wanted share of right labels.
    """
    sure, right = outcomes(targets, probabilities)
    order = np.argsort(-sure, kind="stable")
    sure, right = sure[order], right[order]
    share = np.cumsum(right) / np.arange(1, len(right) + 1)
    last_of_equal = np.append(sure[1:] < sure[:-1], True)
    fit = np.flatnonzero((share >= precision) & last_of_equal)
    return float(sure[fit[-1]]) if len(fit) else _NEVER


def at_threshold(targets: NDArray[np.int_], probabilities: NDArray[np.float32], threshold: float) -> dict[str, Any]:
    """What a threshold gives: `precision` of the labels at or above it (None where none is), and their share,
    `coverage`."""
    sure, right = outcomes(targets, probabilities)
    known = sure >= threshold
    return {"precision": float(right[known].mean()) if known.any() else None, "coverage": float(known.mean())}


def auroc(known: NDArray[np.floating], strange: NDArray[np.floating]) -> float | None:
    """The chance that one of the known has a higher score than one of the strange, ties counting half; None where
    there are none of either (the area under the ROC curve, as Mann and Whitney's statistic gives it)."""
    from scipy.stats import rankdata

    if not (len(known) and len(strange)):
        return None
    ranks = rankdata(np.concatenate([known, strange]))[: len(known)]
    return float((ranks.sum() - len(known) * (len(known) + 1) / 2) / (len(known) * len(strange)))


def outcomes(
    targets: NDArray[np.int_], probabilities: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """How sure each label is, float32 [N], and whether it is right, bool [N].

    Args:
        targets: int [N].
        probabilities: [N, classes].
    """
    return probabilities.max(1), probabilities.argmax(1) == targets
