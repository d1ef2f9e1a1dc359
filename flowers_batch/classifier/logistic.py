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

_SMALL = 1 << 20  # values of codes
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
    rows = np.arange(len(targets))
    width = codes.shape[1]
    penalty = penalty_weight(C, len(targets))
    # The search is for the kernel times the codes' typical norm, so that its tolerances suit codes of any size.
    unit = mean_squared_norm(codes) ** 0.5 or 1.0

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        kernel, bias = np.split(flat.reshape(width + 1, classes), [width])
        kernel = kernel / unit
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
        gradient = (codes.T @ values.astype(np.float32) + penalty * kernel) / unit
        reporter.update(Progress(f"logistic: {len(targets)} photos, loss {value:.4f}"))
        return value, np.concatenate([gradient, values.sum(0, keepdims=True)]).ravel()

    first = np.zeros((width + 1, classes))
    if start is not None:
        first[:width], first[width] = start[0] * unit, start[1]
    options = {"maxiter": _MAX_ITERATIONS, "gtol": _GRADIENT_TOLERANCE, "ftol": _LOSS_TOLERANCE}
    with _few_threads(codes.size):
        found = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options).x
    kernel, bias = np.split(found.reshape(width + 1, classes), [width])
    return (kernel / unit).astype(np.float32), bias[0].astype(np.float32)


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
