"""Making pixels upright, and what the orientation of a photo does to its rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
from numpy.typing import NDArray

# How to make each orientation upright (Exif 2.32, tag 0x0112).
_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: lambda photo: cv2.flip(photo, 1),
    3: lambda photo: cv2.rotate(photo, cv2.ROTATE_180),
    4: lambda photo: cv2.flip(photo, 0),
    5: cv2.transpose,
    6: lambda photo: cv2.rotate(photo, cv2.ROTATE_90_CLOCKWISE),
    7: lambda photo: cv2.flip(cv2.transpose(photo), -1),
    8: lambda photo: cv2.rotate(photo, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return pixels as they are upright: themselves if they are, or if the orientation is unknown.

    Args:
        pixels: uint8 or float32 [height, width] or [height, width, 3].
        orientation: As in EXIF.
    """
    return _UPRIGHT[orientation](pixels) if orientation in _UPRIGHT else pixels


def is_transposed(orientation: int) -> bool:
    """Return whether rows become columns when a photo is made upright."""
    return orientation in (5, 6, 7, 8)


def is_reversed(orientation: int) -> tuple[bool, bool]:
    """Return whether the order of a photo's rows, and that of its columns, is reversed when it is made upright."""
    return orientation in (3, 4, 6, 7), orientation in (2, 3, 7, 8)
