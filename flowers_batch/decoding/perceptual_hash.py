"""A hash that changes little when a photo is resized or recompressed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_HASHED_SIDE = 32


def perceptual_hash(photo: NDArray[np.uint8]) -> int:
    """Return 64 bits: which of the 64 lowest frequencies of a grey 32x32 picture are above their median.

    This is the `pHash` of Zauner, 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions".

    Args:
        photo: uint8 [height, width, 3], RGB.
    """
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    while min(grey.shape) >= 4 * _HASHED_SIDE:  # halving first takes a tenth of the time
        height, width = grey.shape[0] // 2, grey.shape[1] // 2
        grey = cv2.resize(grey[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.resize(grey, (_HASHED_SIDE, _HASHED_SIDE), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
    # The median of 64 numbers; `np.median` holds the GIL three times as long.
    median = np.partition(frequencies, (31, 32))[31:33].mean()
    return int.from_bytes(np.packbits(frequencies > median).tobytes(), "big")
