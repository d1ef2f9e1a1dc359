"""A hash that changes little when a photo is resized or recompressed."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_HASHED_SIDE = 32
_HALVED_SIDE = 4 * _HASHED_SIDE
_BAND_ROWS = 256  # rows in grey at a time: they stay in the cache; an even number


def perceptual_hash(photo: NDArray[np.uint8]) -> int:
    """Return 64 bits: which of the 64 lowest frequencies of a grey 32x32 picture are above their median.

    This is the `pHash` of Zauner, 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions".

    Args:
        photo: uint8 [height, width, 3], RGB.
    """
    grey: NDArray[Any] = _grey(photo)
    while min(grey.shape) >= _HALVED_SIDE:  # halving first takes a tenth of the time
        grey = _halved(grey)
    small = cv2.resize(grey, (_HASHED_SIDE, _HASHED_SIDE), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
    # The median of 64 numbers; `np.median` holds the GIL three times as long.
    median = np.partition(frequencies, (31, 32))[31:33].mean()
    return int.from_bytes(np.packbits(frequencies > median).tobytes(), "big")


def _grey(photo: NDArray[np.uint8]) -> NDArray[Any]:
    """Return the grey photo, a large one at half its size."""
    if min(photo.shape[:2]) < _HALVED_SIDE:
        return cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    height, width = photo.shape[0] // 2, photo.shape[1] // 2
    halved = np.empty((height, width), np.uint8)
    for top in range(0, height, _BAND_ROWS // 2):
        band = photo[2 * top : 2 * min(top + _BAND_ROWS // 2, height)]
        _halved(cv2.cvtColor(band, cv2.COLOR_RGB2GRAY), halved[top : top + _BAND_ROWS // 2])
    return halved


def _halved(grey: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the means of 2x2 pixels; an odd row or column is left out."""
    height, width = grey.shape[0] // 2, grey.shape[1] // 2
    return cv2.resize(grey[: 2 * height, : 2 * width], (width, height), dst=out, interpolation=cv2.INTER_AREA)
