"""Choice of a logistic regression's normalisation and strength by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import is_lower, log_losses
from flowers_batch.classifier.folds import assign_folds, is_predictable
from flowers_batch.classifier.head import Layer, apply_layers
from flowers_batch.classifier.labelled_codes import LabelledCodes
from flowers_batch.classifier.logistic import fit_logistic, mean_squared_norm
from flowers_batch.classifier.normalization import L2, NONE, SQRT_L2, STANDARDIZED, fit_normalization
from flowers_batch.progress import Progress, Reporter

# Of two normalisations that differ by no more than noise, the earlier one is chosen. ReLU codes have few large values,
# which a square root tames, and their length tells contrast rather than content.
_BY_PREFERENCE = (SQRT_L2, L2, NONE, STANDARDIZED)
# C times the mean squared norm of the normalised codes, so that one grid suits them all: of L2-normalised codes, C.
STRENGTHS = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10000.0)
_DEFAULT_STRENGTH = 100.0  # if no photo can be predicted out of fold
_NEGLIGIBLE = 0.002  # difference of log losses
_FOLDS = 5
_MAX_PHOTOS = 2000  # that take part
_MAX_PREDICTED = 400  # of them that are predicted out of fold, or one fold: enough to rank candidates

_Split = tuple[NDArray[np.bool_], NDArray[np.bool_]]  # the photos to fit to, and those to predict


@dataclass(frozen=True)
class Regression:
    """Hyperparameters of a logistic regression.

    Attributes:
        normalization: One of `NORMALIZATIONS`.
        C: The inverse regularisation strength, as in scikit-learn.
    """

    normalization: str
    C: float


def choose_regression(labelled: LabelledCodes, classes: int, seed: int, reporter: Reporter) -> Regression:
    """Return the hyperparameters of the smallest log loss in cross-validation.

    Args:
        labelled: Codes to train on; at most 2000 of them take part.
        classes: Number of classes.
        seed: Decides on the folds.
        reporter: Receives progress.
    """
    labelled = labelled.subsample(_MAX_PHOTOS, seed)
    splits = _split(labelled, seed)
    if not splits:
        return Regression(SQRT_L2, _DEFAULT_STRENGTH)
    found = [_choose_strength(name, labelled, splits, classes, reporter) for name in _BY_PREFERENCE]
    _, least = min(found, key=lambda one: one[1].mean())
    return next(regression for regression, losses in found if not is_lower(least + _NEGLIGIBLE, losses))


def _split(labelled: LabelledCodes, seed: int) -> list[_Split]:
    """Return the splits of cross-validation, no more than are necessary to predict enough photos."""
    folds = assign_folds(labelled.targets, labelled.groups, _FOLDS, seed)
    predictable = is_predictable(labelled.targets, folds)
    splits: list[_Split] = []
    predicted = 0
    for fold in np.unique(folds[predictable]):
        if predicted < _MAX_PREDICTED:
            splits.append((folds != fold, (folds == fold) & predictable))
            predicted += int(splits[-1][1].sum())
    return splits


def _choose_strength(
    name: str, labelled: LabelledCodes, splits: Sequence[_Split], classes: int, reporter: Reporter
) -> tuple[Regression, NDArray[np.float64]]:
    """Return the best C of a normalisation, and the log loss with it of each photo that is predicted."""
    codes, targets = fit_normalization(name, labelled)(labelled.array()), labelled.targets
    unit = mean_squared_norm(codes) or 1.0
    layers: list[Layer | None] = [None] * len(splits)
    best, least = Regression(name, 0.0), np.array([np.inf])
    for strength in STRENGTHS:
        C = float(f"{strength / unit:.3g}")
        losses = []
        for number, (fitted, predicted) in enumerate(splits):
            reporter.update(Progress(f"logistic: {name}, C = {C:g}, fold {number + 1}"))
            layers[number] = layer = fit_logistic(codes[fitted], targets[fitted], classes, C, reporter, layers[number])
            losses.append(log_losses(apply_layers(codes[predicted], [layer]), targets[predicted]))
        reached = np.concatenate(losses)
        if reached.mean() > least.mean() - _NEGLIGIBLE:
            break  # the loss has one minimum, and of equally good regressions the most regular one is steadiest
        best, least = Regression(name, C), reached
    return best, least
