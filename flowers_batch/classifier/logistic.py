"""Multinomial logistic regression with an L2 penalty, fitted to codes in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.class_weights import balanced_sample_weights
from flowers_batch.classifier.head import Layer
from flowers_batch.progress import Progress, Reporter

_CACHED = 1 << 20  # values of codes that stay in a core's cache
_SMALL = 1 << 20  # values of codes, for which one thread is enough
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
        codes: Normalised codes [N, width].
        targets: int [N]: the true classes.
        classes: Number of classes.
        C: Inverse regularisation strength.
        reporter: Receives progress.
        start: Where the search starts; None: at 0.
    """
    from scipy.optimize import minimize

    weights = balanced_sample_weights(targets)
    weights /= weights.sum()
    width = codes.shape[1]
    penalty = penalty_weight(C, len(targets))
    # The search is for the kernel times the codes' typical norm, so that its tolerances suit codes of any size.
    unit = mean_squared_norm(codes) ** 0.5 or 1.0
    rows_at_once = max(1, _CACHED // width)

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        kernel, bias = np.split(flat.reshape(width + 1, classes), [width])
        kernel = kernel / unit
        rounded = kernel.astype(np.float32)
        value, gradient, bias_gradient = penalty / 2 * float((kernel**2).sum()), penalty * kernel, np.zeros(classes)
        # Codes are read from memory once per step, and this is most of the time of a training run: the second product
        # finds a block of them in the cache.
        for start in range(0, len(codes), rows_at_once):
            rows = slice(start, start + rows_at_once)
            losses, errors = _losses_and_errors(codes[rows] @ rounded + bias, targets[rows])
            errors *= weights[rows, None]
            value += float(weights[rows] @ losses)
            gradient += (errors.T.astype(np.float32) @ codes[rows]).T
            bias_gradient += errors.sum(0)
        reporter.update(Progress(f"logistic: {len(targets)} photos, loss {value:.4f}"))
        return value, np.concatenate([gradient / unit, bias_gradient[None]]).ravel()

    first = np.zeros((width + 1, classes))
    if start is not None:
        first[:width], first[width] = start[0] * unit, start[1]
    options = {"maxiter": _MAX_ITERATIONS, "gtol": _GRADIENT_TOLERANCE, "ftol": _LOSS_TOLERANCE}
    with _few_threads(codes.size):
        found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options).x
    kernel, bias = np.split(found.reshape(width + 1, classes), [width])
    return (kernel / unit).astype(np.float32), bias[0].astype(np.float32)


def _losses_and_errors(
    logits: NDArray[np.float64], targets: NDArray[np.int_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the cross-entropies [N] of logits [N, classes], and their gradients; the logits are overwritten.

    In float64, since in float32 a line search would end in rounding noise.
    """
    rows = np.arange(len(targets))
    logits -= logits.max(1, keepdims=True)
    true = logits[rows, targets]
    powers = np.exp(logits, out=logits)
    total = powers.sum(1)
    probabilities = np.divide(powers, total[:, None], out=powers)
    probabilities[rows, targets] -= 1
    return np.log(total) - true, probabilities


def mean_squared_norm(codes: NDArray[np.float32]) -> float:
    """Return the mean over codes [N, width] of their squared L2 norms."""
    return float(np.einsum("ij,ij->", codes, codes, dtype=np.float64)) / len(codes)


def penalty_weight(C: float, photos: int) -> float:
    """Return the weight of half the squared kernel in a loss that is a mean over photos."""
    return 1 / (C * photos)


@contextmanager
def _few_threads(values: int) -> Iterator[None]:
    """Limit the threads of BLAS libraries: idle ones spin, on the cores that others need.

    Args:
        values: Of the codes: if they are few, products are too small for more than one thread.
    """
    controller = _blas()
    libraries = [library.filepath for library in controller.lib_controllers]
    idle = [path for path in libraries if values < _SMALL or "scipy.libs" in Path(path).parts]
    with controller.select(filepath=idle).limit(limits=1):
        yield


@cache
def _blas() -> Any:
    """Return a controller of the BLAS libraries of NumPy and SciPy; finding them takes 20 ms."""
    import scipy.linalg  # noqa: F401  loads them
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
