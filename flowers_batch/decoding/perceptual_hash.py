"""A hash that changes little when a photo is resized or recompressed."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding.upright import is_reversed, upright

_HASHED_SIDE = 32
_HALVED_SIDE = 4 * _HASHED_SIDE
_BAND_PIXELS = 1_000_000  # in grey at a time: they stay in the cache


class PerceptualHash:
    """The 64 bits that say which of the lowest frequencies of a grey 32x32 picture are above their median.

    This is the `pHash` of Zauner, 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions". Rows of a
    large photo can be read when something else reads them, while they are in the cache.

    Args:
        photo: uint8 [height, width, 3], RGB, not upright yet.
        orientation: As in EXIF: the hash is that of the upright photo.
    """

    def __init__(self, photo: NDArray[np.uint8], orientation: int = 1):
        self._orientation = orientation
        self._is_large = min(photo.shape[:2]) >= _HALVED_SIDE
        self._photo = _even(photo, orientation) if self._is_large else photo
        height, width = self._photo.shape[:2]
        self._halved = np.empty((height // 2, width // 2), np.uint8)
        self._rows_read = 0

    def read(self, stop: int) -> None:
        """Read the rows of the photo before `stop`, if that has not been done."""
        stop = min(stop, len(self._photo)) // 2 * 2
        if self._is_large and stop > self._rows_read:
            grey = cv2.cvtColor(self._photo[self._rows_read : stop], cv2.COLOR_RGB2GRAY)
            _halved(grey, self._halved[self._rows_read // 2 : stop // 2])
            self._rows_read = stop

    def value(self) -> int:
        """Read what is left of the photo, and return its hash."""
        grey = upright(self._grey(), self._orientation)
        while min(grey.shape) >= _HALVED_SIDE:  # halving first takes a tenth of the time
            grey = _halved(grey)
        small = cv2.resize(grey, (_HASHED_SIDE, _HASHED_SIDE), interpolation=cv2.INTER_AREA)
        frequencies = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
        ordered = np.sort(frequencies)
        median = (ordered[31] + ordered[32]) / 2  # `np.median` takes ten times as long
        return int.from_bytes(np.packbits(frequencies > median).tobytes(), "big")

    def _grey(self) -> NDArray[Any]:
        """Return the grey photo, a large one at half its size."""
        if not self._is_large:
            return cv2.cvtColor(self._photo, cv2.COLOR_RGB2GRAY)
        band = max(2, _BAND_PIXELS // self._photo.shape[1])
        while self._rows_read < len(self._photo):
            self.read(self._rows_read + band)
        return self._halved


def perceptual_hash(photo: NDArray[np.uint8]) -> int:
    """Return the hash of an upright photo: uint8 [height, width, 3], RGB."""
    return PerceptualHash(photo).value()


def _even(photo: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return a photo without its last row and column once it is upright, where these are odd."""
    height, width = photo.shape[:2]
    from_below, from_right = is_reversed(orientation)
    top, left = height % 2 * from_below, width % 2 * from_right
    return photo[top : top + height // 2 * 2, left : left + width // 2 * 2]


def _halved(grey: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the means of 2x2 pixels; an odd row or column is left out."""
    height, width = grey.shape[0] // 2, grey.shape[1] // 2
    return cv2.resize(grey[: 2 * height, : 2 * width], (width, height), dst=out, interpolation=cv2.INTER_AREA)
