"""Fitting of a head to codes, of either kind: a logistic regression, or a network with one hidden layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import TopLabels
from flowers_batch.classifier.gradient_descent import fit_by_gradient_descent
from flowers_batch.classifier.head import Head
from flowers_batch.classifier.labelled_codes import LabelledCodes
from flowers_batch.classifier.logistic import choose_C, fit_logistic
from flowers_batch.classifier.standardization import fit_standardizer
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter

LOGISTIC, MLP = KINDS = ("logistic", "mlp")
_FOLDS = 5  # of predictions out of fold, at most: each classifier sees four fifths of the photos


@dataclass(frozen=True)
class FittedHead:
    """A head, and the hyperparameters that were chosen while it was fitted.

    Attributes:
        kind: One of `KINDS`.
        head: Without temperature and threshold.
        C: Of a logistic regression: the inverse regularisation strength, as in scikit-learn.
        epochs: Of a head fitted by gradient descent: the epoch of the smallest validation loss.
    """

    kind: str
    head: Head
    C: float | None = None
    epochs: int | None = None


def fit(
    kind: str,
    train: LabelledCodes,
    validation: LabelledCodes,
    classes: tuple[str, ...],
    seed: int,
    C: float | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> FittedHead:
    """Fit a head in which each class counts equally, however few photos it has.

    Args:
        kind: One of `KINDS`.
        train: Codes to fit to, with photos of each class.
        validation: Codes for early stopping of gradient descent.
        classes: The classes' names.
        seed: Equal seeds and codes give equal heads.
        C: Of a logistic regression; None: cross-validation in `train` chooses it.
        reporter: Receives progress.
    """
    train = train.loaded()
    standardize = fit_standardizer(train)
    epochs = None
    if kind == LOGISTIC:
        C = C or choose_C(train, standardize, len(classes), seed, reporter)
    if kind == LOGISTIC and train.is_in_memory:
        layers = [fit_logistic(standardize(train.array()), train.targets, len(classes), C or 0, reporter)]
    else:
        layers, epochs = fit_by_gradient_descent(train, validation, standardize, len(classes), seed, C, reporter)
    return FittedHead(kind, Head(classes, standardize.mean, standardize.scale, tuple(layers)), C, epochs)


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
    labelled: LabelledCodes, classes: tuple[str, ...], seed: int, reporter: Reporter = NULL_REPORTER
) -> NDArray[np.float32]:
    """Return probabilities float32 [N, classes], each by a regression fitted to no near-duplicate of the photo."""
    from sklearn.model_selection import StratifiedGroupKFold

    C: float | None = None
    probabilities = np.zeros((len(labelled), len(classes)), np.float32)
    most = int(np.bincount(labelled.targets).max())  # photos of a class; scikit-learn refuses to make more folds
    folds = StratifiedGroupKFold(min(_FOLDS, most), shuffle=True, random_state=seed)
    for inside, outside in folds.split(labelled.targets, labelled.targets, labelled.groups):
        part = labelled[inside]
        fitted = fit(LOGISTIC, part, part, classes, seed, C, reporter)
        C = fitted.C  # chosen in the first fold
        probabilities[outside] = fitted.head.probabilities_of(predict_logits(fitted.head, labelled[outside], reporter))
    return probabilities
