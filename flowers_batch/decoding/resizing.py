"""Resizing a square to 224x224 exactly as scikit-image does.

The reference (`tensorflow_vgg.images.load_image`) crops the centre square and resizes it with scikit-image:
a Gaussian of sigma (factor-1)/2 against aliasing, cut at 4 sigma and mirrored at the border, then linear
interpolation between pixel centres. OpenCV does the same in float32 if the border is handled as scikit-image does.
All of it is linear and separable, so a large side is resized by one banded matrix, made once for each length:
only those smoothed pixels are computed that the interpolation needs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 224
BAND_ROWS = 64  # rows converted at a time: keeps memory small, and skips the resize matrix's zeros
_LARGEST_FILTERED = 850  # pixels of a side: of longer sides most smoothed pixels would not be used

Pixels = NDArray[Any]  # float32 or uint8 [..., 224, 224, 3], RGB in [0, 255]


def resize(square: NDArray[np.uint8], out: Pixels | None = None) -> Pixels:
    """Resize a square picture as scikit-image does with its defaults.

    Args:
        square: uint8 [side, side, 3].
        out: The array for the result: float32 or, rounded, uint8 [224, 224, 3]; None makes a float32 array.

    Returns:
        [224, 224, 3] in [0, 255].
    """
    exact: Pixels = out if out is not None and out.dtype == np.float32 else np.empty((SIDE, SIDE, 3), np.float32)
    side = len(square)
    if side == SIDE:
        exact[:] = square
    elif side > _LARGEST_FILTERED:
        _resize_by_bands(square, exact)
    else:
        gaussian = _gaussian(side)
        if len(gaussian) == 1:
            smooth: NDArray[Any] = square.astype(np.float32)
        else:
            smooth = cv2.sepFilter2D(square, cv2.CV_32F, gaussian, gaussian, borderType=cv2.BORDER_REFLECT_101)
        if side > SIDE:
            cv2.resize(smooth, (SIDE, SIDE), dst=exact, interpolation=cv2.INTER_LINEAR)
        else:
            _enlarge(smooth, exact)
    if out is None or out is exact:
        return exact
    cv2.convertScaleAbs(exact, dst=out)  # rounds to the nearest
    return out


def _enlarge(square: NDArray[Any], out: NDArray[Any]) -> None:
    """Interpolate between the pixels of a square smaller than 224x224.

    OpenCV repeats the pixels at the border where scikit-image mirrors them, so the border is computed here.
    """
    side = len(square)
    centres = (np.arange(SIDE // 2) + 0.5) * (side / SIDE) - 0.5
    share = -centres[centres < 0].astype(np.float32)[:, None, None]  # of the second pixel from the border
    beyond, second = len(share), min(1, side - 1)

    def fix_borders(enlarged: NDArray[Any], rows: NDArray[Any]) -> None:
        enlarged[:beyond] = rows[0] * (1 - share) + rows[second] * share
        enlarged[SIDE - beyond :] = (rows[-1] * (1 - share) + rows[-1 - second] * share)[::-1]

    tall = cv2.resize(square, (side, SIDE), interpolation=cv2.INTER_LINEAR)
    fix_borders(tall, square)
    cv2.resize(tall, (SIDE, SIDE), dst=out, interpolation=cv2.INTER_LINEAR)
    fix_borders(out.swapaxes(0, 1), tall.swapaxes(0, 1))


def _resize_by_bands(square: NDArray[np.uint8], out: Pixels) -> None:
    """Resize a large square by two products with a banded matrix, without all of it in memory as float32."""
    side = len(square)
    rows = np.zeros((SIDE, side * 3), np.float32)
    for source, target, weights in _resize_bands(side):
        rows[target] += weights @ square[source].astype(np.float32, order="C").reshape(-1, side * 3)
    columns = rows.reshape(SIDE, side, 3).transpose(1, 0, 2).reshape(side, SIDE * 3)
    result = np.zeros((SIDE, SIDE * 3), np.float32)
    for source, target, weights in _resize_bands(side):
        result[target] += weights @ columns[source]
    np.minimum(result, 255, out=result)  # sums of rounded weights may exceed 1 by rounding
    out[:] = result.reshape(SIDE, SIDE, 3).transpose(1, 0, 2)


@lru_cache(maxsize=1024)
def _gaussian(side: int) -> NDArray[np.float32]:
    """Return the weights of scikit-image's anti-aliasing Gaussian for a side that becomes 224."""
    sigma = max(0.0, (side / SIDE - 1) / 2)
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (sigma or 1)) ** 2)
    return (weights / weights.sum()).astype(np.float32)


@lru_cache(maxsize=256)
def _resize_bands(side: int) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Return the nonzero parts of the matrix float32 [224, side] that resizes a side: columns, rows, numbers."""
    gaussian = _gaussian(side).astype(np.float64)
    offsets = np.arange(len(gaussian)) - len(gaussian) // 2
    centres = (np.arange(SIDE) + 0.5) * (side / SIDE) - 0.5
    below = np.floor(centres).astype(np.int64)
    matrix = np.zeros((SIDE, side))
    for tap, weight in ((below, below + 1 - centres), (below + 1, centres - below)):
        columns = _mirror(tap[:, None] + offsets, side)
        np.add.at(matrix, (np.arange(SIDE)[:, None], columns), weight[:, None] * gaussian)
    used = matrix != 0
    first = np.minimum.accumulate(used.argmax(1)[::-1])[::-1]
    last = np.maximum.accumulate(side - used[:, ::-1].argmax(1))
    bands = []
    for start in range(0, side, BAND_ROWS):
        source = slice(start, min(start + BAND_ROWS, side))
        target = slice(np.searchsorted(last, source.start, "right"), np.searchsorted(first, source.stop))
        bands.append((source, target, matrix[target, source].astype(np.float32)))
    return bands


def _mirror(index: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Fold an index back into 0..side-1, without repeating the border: 2 1 | 0 1 2 3 | 2 1."""
    index = np.abs(index) % (2 * side - 2)
    return np.minimum(index, 2 * side - 2 - index)
