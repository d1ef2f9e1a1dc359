"""The threshold at which labels have a promised precision: fixed-sequence testing with exact binomial bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import TopLabels

ALPHA = 0.05  # how likely a broken promise may be
_STEPS = 10  # thresholds that are tested, at most
_ABOVE_ALL = 2.0  # a threshold that no probability reaches
_MOST_NEEDED = 1_000_000  # photos; if even these do not suffice, more do not help


@dataclass(frozen=True)
class Promise:
    """A threshold, and what is known of the labels whose probability reaches it.

    Attributes:
        threshold: The lowest probability of a label that is not unknown; above 1 if all are.
        bound: The lower bound of their precision, at a confidence of 95%; None if all are unknown.
        kept: How many photos the bound rests on: those that reach the threshold.
        photos: How many photos took part; of near-duplicates, one does.
    """

    threshold: float
    bound: float | None
    kept: int
    photos: int


def promise_precision(top: TopLabels, groups: NDArray[np.int_], precision: float) -> Promise:
    """Return the lowest threshold found at which the lower bound of the labels' precision is high enough.

    Thresholds are tested from the surest label down, and the first that fails ends the search: so the chance that any
    passes wrongly is 5% although several are tested (fixed-sequence testing: Maurer, Hothorn and Lehmacher, 1995; for
    thresholds: Angelopoulos et al., 2021, "Learn then Test"). The first one keeps as few photos as may contain an
    error, each later one a tenth of all photos more. The bound is that of Clopper and Pearson, 1934.

    Args:
        top: Labels of photos to which the classifier was not fitted.
        groups: int [N]: each photo's group of near-duplicates; the first photo of a group counts for all of it.
        precision: The wanted precision, above 0 and up to 1.
    """
    probabilities, correct = _ranked(top, groups)
    photos = len(probabilities)
    promise = Promise(_ABOVE_ALL, None, 0, photos)
    kept = max((start for start in _starts(precision) if start <= photos), default=None)
    while kept is not None:
        threshold = float(probabilities[kept - 1])
        ties = int(np.searchsorted(-probabilities, -threshold, side="right"))  # all of them are kept, or none
        bound = lower_bound(int(correct[:ties].sum()), ties)
        if bound < precision:
            break
        promise = Promise(threshold, bound, ties, photos)
        kept = min(photos, ties + max(1, photos // _STEPS)) if ties < photos else None
    return promise


def lower_bound(correct: int, photos: int) -> float:
    """Return the lower bound of a proportion at a one-sided confidence of 95% (Clopper and Pearson, 1934)."""
    from scipy.stats import beta

    return float(beta.ppf(ALPHA, correct, photos - correct + 1)) if correct else 0.0


def photos_needed(top: TopLabels, groups: NDArray[np.int_], precision: float) -> int | None:
    """Return how many photos, of the same kind as these, would probably be enough to promise a precision.

    It is assumed that errors are as frequent among the surest labels of more photos as among those of these.

    Args:
        top, groups, precision: As for `promise_precision`.

    Returns:
        None if there is no such number.
    """
    _, correct = _ranked(top, groups)
    photos = len(correct)
    if not photos or precision == 1:
        return None
    needed = []
    for share in range(1, _STEPS + 1):
        kept = max(1, photos * share // _STEPS)
        errors = kept - int(correct[:kept].sum())
        enough = _enough_photos(errors / kept, precision)
        if enough:
            needed.append(enough * photos / kept)
    return min(_MOST_NEEDED, round(min(needed))) if needed else None


def _enough_photos(error_rate: float, precision: float) -> int | None:
    """Return how many labels have a high enough bound if this share of them, and two more, are wrong."""
    from scipy.stats import beta

    counts = np.unique(np.geomspace(1, _MOST_NEEDED, 2000).astype(int))
    errors = np.minimum(counts, np.ceil(error_rate * counts).astype(int) + 2)
    bounds = beta.ppf(ALPHA, np.maximum(counts - errors, 1e-9), errors + 1)
    enough = counts[bounds >= precision]
    return int(enough[0]) if len(enough) else None


def _starts(precision: float) -> list[int]:
    """Return the fewest labels whose bound is high enough with no error, and with one; none if no number is."""
    from scipy.stats import beta

    if precision == 1:
        return []
    without = math.ceil(math.log(ALPHA) / math.log(precision))
    counts = np.arange(without + 1, 3 * without + 10)
    return [without, int(counts[beta.ppf(ALPHA, counts - 1, 2) >= precision][0])]


def _ranked(top: TopLabels, groups: NDArray[np.int_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return probabilities and correctness of one label of each group, the surest first."""
    _, firsts = np.unique(groups, return_index=True)
    order = firsts[np.argsort(-top.probabilities[firsts], kind="stable")]
    return top.probabilities[order], top.correct[order]
