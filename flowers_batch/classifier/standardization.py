"""Standardisation of codes: mean 0 and variance 1 in each dimension."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.labelled_codes import LabelledCodes


@dataclass(frozen=True)
class Standardizer:
    """Subtracts `mean`, then divides by `scale`; both float32 [width]."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    def __call__(self, codes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return standardised codes, float32 [N, width]."""
        standardised = codes.astype(np.float32)
        standardised -= self.mean
        standardised /= self.scale
        return standardised


def fit_standardizer(labelled: LabelledCodes) -> Standardizer:
    """Return the standardizer of some codes, which are read chunk by chunk."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler(copy=False)
    for _, codes in labelled.chunks():
        scaler.partial_fit(codes.astype(np.float32))
    return Standardizer(scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32))
