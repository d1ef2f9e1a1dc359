"""Multinomial logistic regression with an L2 penalty, fitted to codes in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import log_loss
from flowers_batch.classifier.class_weights import balanced_sample_weights
from flowers_batch.classifier.head import Layer, apply_layers
from flowers_batch.classifier.labelled_codes import LabelledCodes
from flowers_batch.classifier.standardization import Standardizer
from flowers_batch.progress import Progress, Reporter

# Inverse regularisation strengths, as scikit-learn's `C`; cross-validation chooses one.
C_CANDIDATES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_DEFAULT_C = 1e-2  # if a class has fewer photos than there are folds
_FOLDS = 3
_MAX_FOLDED_PHOTOS = 4000  # enough to rank candidates that are a factor of ten apart
_MAX_ITERATIONS = 500
_GRADIENT_TOLERANCE, _LOSS_TOLERANCE = 1e-4, 1e-7  # of L-BFGS


def fit_logistic(
    codes: NDArray[np.float32],
    targets: NDArray[np.int_],
    classes: int,
    C: float,
    reporter: Reporter,
    start: Layer | None = None,
) -> Layer:
    """Return the kernel [width, classes] and bias [classes] of a regression; each class counts equally.

    The minimum is that of scikit-learn's `LogisticRegression(C=C, class_weight="balanced")` with more than two classes,
    which would copy the codes to float64 in every step.

    Args:
        codes: Standardised codes [N, width].
        targets: int [N]: the true classes.
        classes: Number of classes.
        C: Inverse regularisation strength.
        reporter: Receives progress.
        start: Where the search starts; None: at 0.
    """
    from scipy.optimize import minimize

    weights = balanced_sample_weights(targets)
    weights /= weights.sum()
    rows = np.arange(len(targets))
    width = codes.shape[1]
    penalty = penalty_weight(C, len(targets))

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        kernel, bias = np.split(flat.reshape(width + 1, classes), [width])
        # All but the products is float64: in float32 the line search would end in rounding noise. In place, since
        # this is most of the time of a training run.
        values = (codes @ kernel.astype(np.float32)).astype(np.float64) + bias
        values -= values.max(1, keepdims=True)
        true = values[rows, targets]
        np.exp(values, out=values)
        total = values.sum(1)
        value = float(weights @ (np.log(total) - true)) + penalty / 2 * float((kernel**2).sum())
        values /= total[:, None]
        values[rows, targets] -= 1
        values *= weights[:, None]
        gradient = codes.T @ values.astype(np.float32) + penalty * kernel
        reporter.update(Progress(f"logistic: {len(targets)} photos, loss {value:.4f}"))
        return value, np.concatenate([gradient, values.sum(0, keepdims=True)]).ravel()

    first = np.zeros((width + 1, classes)) if start is None else np.concatenate([start[0], start[1][None]])
    options = {"maxiter": _MAX_ITERATIONS, "gtol": _GRADIENT_TOLERANCE, "ftol": _LOSS_TOLERANCE}
    with _single_threaded_scipy():
        found = minimize(loss, first.astype(np.float64).ravel(), jac=True, method="L-BFGS-B", options=options).x
    kernel, bias = np.split(found.reshape(width + 1, classes).astype(np.float32), [width])
    return kernel, bias[0]


def choose_C(labelled: LabelledCodes, standardize: Standardizer, classes: int, seed: int, reporter: Reporter) -> float:
    """Return the candidate of the smallest log loss in cross-validation; near-duplicates share a fold.

    Args:
        labelled: Codes to train on; at most 4000 of them take part.
        standardize: Their standardizer.
        classes: Number of classes.
        seed: Decides on the folds.
        reporter: Receives progress.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labelled = labelled.subsample(_MAX_FOLDED_PHOTOS, seed)
    if np.bincount(labelled.targets, minlength=classes).min() < _FOLDS:
        return _DEFAULT_C
    codes, targets = standardize(labelled.array()), labelled.targets
    losses = np.zeros(len(C_CANDIDATES))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer groups than folds
        for fold, (inside, outside) in enumerate(folds.split(targets, targets, labelled.groups), 1):
            part, held_out = codes[inside], codes[outside]
            layer: Layer | None = None
            for number, C in enumerate(C_CANDIDATES):
                reporter.update(Progress(f"logistic: C = {C:g} on fold {fold} of {_FOLDS}"))
                layer = fit_logistic(part, targets[inside], classes, C, reporter, layer)
                losses[number] += log_loss(apply_layers(held_out, [layer]), targets[outside]) * len(held_out)
    return C_CANDIDATES[int(losses.argmin())]


def penalty_weight(C: float, photos: int) -> float:
    """Return the weight of half the squared kernel in a loss that is a mean over photos."""
    return 1 / (C * photos)


@contextmanager
def _single_threaded_scipy() -> Iterator[None]:
    """Limit SciPy's own BLAS to one thread: its idle threads would spin on the cores that NumPy's BLAS needs."""
    from threadpoolctl import ThreadpoolController

    controller = ThreadpoolController()
    own = [library.filepath for library in controller.lib_controllers if "scipy.libs" in Path(library.filepath).parts]
    with controller.select(filepath=own).limit(limits=1):
        yield
