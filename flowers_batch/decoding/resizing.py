"""Resizing a square to 224x224 exactly as scikit-image does.

The reference (`tensorflow_vgg.images.load_image`) crops the centre square and resizes it with scikit-image:
a Gaussian of sigma (factor-1)/2 against aliasing, cut at 4 sigma and mirrored at the border, then linear
interpolation between pixel centres. OpenCV does the same in float32 if the border is handled as scikit-image does.
A large square is resized by products with matrices: see `resize_products`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding.pixels import SIDE, Pixels
from flowers_batch.decoding.resize_matrix import SquareSide, gaussian
from flowers_batch.decoding.resize_products import resize_columns, resize_rows

_LARGEST_FILTERED = 480  # pixels of a side: for longer ones products take less time


def resize(
    square: NDArray[np.uint8],
    out: Pixels | None = None,
    sides: tuple[SquareSide, SquareSide] | None = None,
    before: Callable[[int], None] | None = None,
) -> Pixels:
    """Resize a square picture as scikit-image does with its defaults, or nearly so if it was decoded to a fraction.

    Args:
        square: uint8 [rows, columns, 3].
        out: The array for the result: float32 or, rounded, uint8 [224, 224, 3]; None makes a float32 array.
        sides: Where the square's sides, vertical and horizontal, are in a photo decoded to a fraction of its size.
        before: Called before rows of a large square are read, with the number of the row where these end.

    Returns:
        [224, 224, 3] in [0, 255].
    """
    resized = out if out is not None and out.dtype == np.float32 else np.empty((SIDE, SIDE, 3), np.float32)
    vertical, horizontal = sides or (SquareSide(len(square)), SquareSide(len(square)))
    if vertical.scale > 1 or vertical.length > _LARGEST_FILTERED:
        resize_columns(resize_rows(square, vertical, before), horizontal, resized)
        np.minimum(resized, 255, out=resized)  # sums of rounded weights may exceed 1 by rounding
    else:
        _resize_by_filters(square, resized)
    return _rounded(resized, out)


def _resize_by_filters(square: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    side = len(square)
    if side == SIDE:
        out[:] = square
        return
    weights = _gaussian(side)
    if len(weights) == 1:
        smooth: NDArray[Any] = square.astype(np.float32)
    else:
        smooth = cv2.sepFilter2D(square, cv2.CV_32F, weights, weights, borderType=cv2.BORDER_REFLECT_101)
    if side > SIDE:
        cv2.resize(smooth, (SIDE, SIDE), dst=out, interpolation=cv2.INTER_LINEAR)
    else:
        _enlarge(smooth, out)


def _rounded(resized: Pixels, out: Pixels | None) -> Pixels:
    """Return `out` with the resized pixels, rounded if it is of another type."""
    if out is None or out is resized:
        return resized
    cv2.convertScaleAbs(resized, dst=out)  # rounds to the nearest
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


@lru_cache(maxsize=1024)
def _gaussian(side: int) -> NDArray[np.float32]:
    return gaussian(side).astype(np.float32)
