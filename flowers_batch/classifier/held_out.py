"""Predictions of labelled photos by heads that were fitted to neither them nor their near-duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import TopLabels, calibrate
from flowers_batch.classifier.fitting import predict_logits, predict_out_of_fold
from flowers_batch.classifier.folds import NO_FOLD, assign_folds, is_predictable
from flowers_batch.classifier.head import Head
from flowers_batch.classifier.labelled_codes import LabelledCodes
from flowers_batch.classifier.regression_choice import Regression
from flowers_batch.progress import Reporter

_FOLDS = 10


@dataclass(frozen=True)
class HeldOut:
    """Logits of labelled photos by heads that were fitted to neither them nor their near-duplicates.

    Attributes:
        logits: float32 [N, classes], without temperature.
        targets, groups: int [N]: each photo's class, and its group of near-duplicates.
        predictable: bool [N]: False if the head knew no photo of the class; such a label is wrong for certain.
        is_cross_validated: Whether they come from all photos but the test photos, out of fold; else from the
            validation photos.
    """

    logits: NDArray[np.float32]
    targets: NDArray[np.int_]
    groups: NDArray[np.int_]
    predictable: NDArray[np.bool_]
    is_cross_validated: bool

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which of the predictable photos are labelled correctly."""
        return (self.logits.argmax(1) == self.targets)[self.predictable]

    def temperature(self) -> float:
        """Return the temperature that calibrates the logits; 1 if none is better beyond noise."""
        if not self.predictable.any():
            return 1.0
        return calibrate(self.logits[self.predictable], self.targets[self.predictable])

    def top_labels(self, temperature: float) -> TopLabels:
        """Return the likeliest label of each photo."""
        from scipy.special import softmax

        probabilities = softmax(self.logits / np.float32(temperature), axis=1)
        return TopLabels(self.targets, probabilities.argmax(1), probabilities.max(1))


def cross_validate(
    labelled: LabelledCodes,
    classes: tuple[str, ...],
    seed: int,
    regression: Regression,
    reporter: Reporter,
    *,
    groups: NDArray[np.int_] | None = None,
    trained: NDArray[np.bool_] | None = None,
    judged: NDArray[np.bool_] | None = None,
) -> HeldOut:
    """Return logits of the judged photos by logistic regressions, each fitted to the photos of nine of ten folds.

    Photos that are not judged, and are no near-duplicates of judged ones, are in no fold: all regressions are fitted to
    them, as the final one is.

    Args:
        labelled: The photos, without test photos.
        classes: The classes' names.
        seed: Decides on the folds.
        regression: Normalisation and C.
        reporter: Receives progress.
        groups: int [N]: photos that share a fold; None: near-duplicates.
        trained: bool [N]: the photos that regressions are fitted to; None: all.
        judged: bool [N]: the photos to predict; None: all.
    """
    groups = labelled.groups if groups is None else groups
    judged = np.ones(len(labelled), bool) if judged is None else judged
    folds = np.full(len(labelled), NO_FOLD)
    folded = np.isin(groups, groups[judged])
    if folded.any():
        folds[folded] = assign_folds(labelled.targets[folded], groups[folded], _FOLDS, seed)
    logits = predict_out_of_fold(labelled, classes, folds, seed, regression, reporter, trained=trained)
    predictable = is_predictable(labelled.targets, folds)
    return HeldOut(logits[judged], labelled.targets[judged], labelled.groups[judged], predictable[judged], True)


def hold_out(head: Head, validation: LabelledCodes, reporter: Reporter) -> HeldOut:
    """Return a head's logits of its validation photos."""
    logits = predict_logits(head, validation, reporter)
    return HeldOut(logits, validation.targets, validation.groups, np.ones(len(validation), bool), False)
