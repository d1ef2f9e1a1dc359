"""Fitting of a head to codes, of either kind: a logistic regression, or a network with one hidden layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import TopLabels
from flowers_batch.classifier.folds import NO_FOLD
from flowers_batch.classifier.gradient_descent import fit_by_gradient_descent
from flowers_batch.classifier.head import Head
from flowers_batch.classifier.labelled_codes import LabelledCodes
from flowers_batch.classifier.logistic import fit_logistic
from flowers_batch.classifier.normalization import STANDARDIZED, fit_normalization
from flowers_batch.classifier.regression_choice import Regression, choose_regression
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter

LOGISTIC, MLP = KINDS = ("logistic", "mlp")


@dataclass(frozen=True)
class FittedHead:
    """A head, and the hyperparameters that were chosen while it was fitted.

    Attributes:
        kind: One of `KINDS`.
        head: Without temperature and threshold.
        regression: The hyperparameters of a logistic regression; None: the head is a network, on standardised codes.
        epochs: Of a head fitted by gradient descent: the epoch of the smallest validation loss.
    """

    kind: str
    head: Head
    regression: Regression | None = None
    epochs: int | None = None


def fit(
    kind: str,
    train: LabelledCodes,
    validation: LabelledCodes,
    classes: tuple[str, ...],
    seed: int,
    regression: Regression | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> FittedHead:
    """Fit a head in which each class counts equally, however few photos it has.

    Args:
        kind: One of `KINDS`.
        train: Codes to fit to, with photos of each class.
        validation: Codes for early stopping of gradient descent.
        classes: The classes' names.
        seed: Equal seeds and codes give equal heads.
        regression: Normalisation and C of a logistic regression; None: cross-validation in `train` chooses them.
        reporter: Receives progress.
    """
    train = train.loaded()
    if kind == LOGISTIC:
        regression = regression or choose_regression(train, len(classes), seed, reporter)
        normalization = fit_normalization(regression.normalization, train)
    else:
        regression, normalization = None, fit_normalization(STANDARDIZED, train)
    epochs = None
    if regression and train.is_in_memory:
        codes = normalization(train.array())
        layers = [fit_logistic(codes, train.targets, len(classes), regression.C, reporter)]
    else:
        C = regression.C if regression else None
        layers, epochs = fit_by_gradient_descent(train, validation, normalization, len(classes), seed, C, reporter)
    return FittedHead(kind, Head(classes, normalization, tuple(layers)), regression, epochs)


def predict_logits(head: Head, labelled: LabelledCodes, reporter: Reporter = NULL_REPORTER) -> NDArray[np.float32]:
    """Return a head's logits of labelled codes, float32 [N, classes]."""
    found = np.empty((len(labelled), len(head.classes)), np.float32)
    for positions, codes in labelled.chunks():
        found[positions] = head.logits(codes)
        reporter.update(Progress(f"predicting {len(labelled)} photos"))
    return found


def predict_top_labels(head: Head, labelled: LabelledCodes, reporter: Reporter = NULL_REPORTER) -> TopLabels:
    """Return the likeliest label of each photo; the memory for it does not depend on the number of classes."""
    labels, probabilities = np.empty(len(labelled), np.int64), np.empty(len(labelled), np.float32)
    for positions, codes in labelled.chunks():
        found = head.probabilities(codes)
        labels[positions], probabilities[positions] = found.argmax(1), found.max(1)
        reporter.update(Progress(f"predicting {len(labelled)} photos"))
    return TopLabels(labelled.targets, labels, probabilities)


def predict_out_of_fold(
    labelled: LabelledCodes,
    classes: tuple[str, ...],
    folds: NDArray[np.int_],
    seed: int,
    regression: Regression,
    reporter: Reporter = NULL_REPORTER,
    *,
    trained: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Return logits float32 [N, classes], each by a regression that was fitted to the photos of all other folds.

    Args:
        labelled: Codes of N photos.
        classes: The classes' names.
        folds: int [N]: see `assign_folds`; photos of `NO_FOLD` are not predicted.
        seed: As for `fit`.
        regression: Normalisation and C.
        reporter: Receives progress.
        trained: bool [N]: the photos that regressions are fitted to; None: all.
    """
    logits = np.zeros((len(labelled), len(classes)), np.float32)
    for fold in np.setdiff1d(folds, NO_FOLD):
        is_inside = folds != fold if trained is None else (folds != fold) & trained
        if is_inside.any():
            inside, outside = labelled[is_inside], labelled[folds == fold]
            head = fit(LOGISTIC, inside, inside, classes, seed, regression, reporter).head
            logits[folds == fold] = predict_logits(head, outside, reporter)
    return logits
