"""Normalisation of codes: what a head does to a code before its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.labelled_codes import LabelledCodes

NONE, STANDARDIZED, L2, SQRT_L2 = NORMALIZATIONS = ("none", "standardized", "l2", "sqrt_l2")
MIN_NORM = 1e-3  # a code's norm counts as this at least, so that a code of zeros stays one, and gradients finite
ROOT_OFFSET = 1e-4  # bounds the gradient of the square root, by 1 / (2 * sqrt(1e-4)) = 50
_ROWS_AT_ONCE = 4096  # of an array; bounds the memory of what is computed on the way


@dataclass(frozen=True)
class Normalization:
    """One of `NORMALIZATIONS`; L2 and signed square root follow Perronnin et al., 2010, "Improving the Fisher Kernel".

    Attributes:
        name: `none`; `standardized`: each dimension less its mean, divided by its scale; `l2`: each code divided by its
            norm; `sqrt_l2`: the signed square root of each value, then `l2`.
        mean, scale: float32 [width] of `standardized`; None of the others.
    """

    name: str = NONE
    mean: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None

    def __call__(self, codes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return normalised codes float32 [N, width] of codes [N, width]."""
        normalized = np.empty(codes.shape, np.float32)
        for start in range(0, len(codes), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            normalized[rows] = self.apply(codes[rows].astype(np.float32), np)
        return normalized

    def apply(self, values: Any, ops: Any) -> Any:
        """Return normalised codes, of the type that `ops` computes with; all of it can be differentiated.

        Args:
            values: float32 [N, width].
            ops: `numpy` or `keras.ops`.
        """
        if self.name == STANDARDIZED:
            return (values - self.mean) / self.scale
        if self.name == SQRT_L2:
            values = ops.sign(values) * (ops.sqrt(ops.abs(values) + ROOT_OFFSET) - ROOT_OFFSET**0.5)
        if self.name in (L2, SQRT_L2):
            # The floor is below the root: the root's gradient at 0 is infinite.
            squares = ops.sum(ops.square(values), axis=-1, keepdims=True)
            values = values / ops.sqrt(ops.maximum(squares, MIN_NORM**2))
        return values

    def typical_value(self, width: int) -> float:
        """Return the root mean square of normalised values of codes of a width, where it is known; else 1."""
        return width**-0.5 if self.name in (L2, SQRT_L2) else 1.0

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """All arrays by name."""
        return {} if self.mean is None or self.scale is None else {"mean": self.mean, "scale": self.scale}


def fit_normalization(name: str, labelled: LabelledCodes) -> Normalization:
    """Return the normalisation of a name for some codes, which are read chunk by chunk if it depends on them."""
    if name != STANDARDIZED:
        return Normalization(name)
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler(copy=False)
    for _, codes in labelled.chunks():
        scaler.partial_fit(codes.astype(np.float32))
    return Normalization(name, scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32))
