"""Weights of photos by which each class counts equally."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def balanced_sample_weights(targets: NDArray[np.int_]) -> NDArray[np.float32]:
    """Return weights float32 [N] of mean 1 that sum to the same for each class, of targets int [N]."""
    from sklearn.utils.class_weight import compute_sample_weight

    return compute_sample_weight("balanced", targets).astype(np.float32)
