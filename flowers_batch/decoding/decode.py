"""Decoding an image file's bytes to the 224x224 pixels that the network sees: fast, and equal to the reference."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowers_batch.config import EXACT, FAST, ArchiveConfig
from flowers_batch.decoding.decode_photo import Turns
from flowers_batch.decoding.errors import explain_lack_of_memory
from flowers_batch.decoding.formats import OpenImage, first_frame, open_image
from flowers_batch.decoding.jpeg import jpeg_scale
from flowers_batch.decoding.perceptual_hash import PerceptualHash
from flowers_batch.decoding.pixels import SIDE, Pixels
from flowers_batch.decoding.resize_matrix import SquareSide
from flowers_batch.decoding.resizing import resize
from flowers_batch.decoding.upright import is_reversed, is_transposed, upright

# Both sides of a photo that is decoded to a fraction of its size keep so many pixels. The error that this adds to codes
# is then about that of rounding pixels to bytes: `benchmarks/decode_modes.py` measures both.
FAST_SIDE = 3 * SIDE


@dataclass(frozen=True)
class Picture:
    """A decoded photo.

    Attributes:
        pixels: [224, 224, 3], RGB in [0, 255], of the upright photo's centre square: float32, or the type of the
            caller's array.
        width, height: Of the upright photo, in pixels.
        phash: 64 bits that change little when a photo is resized or recompressed.
    """

    pixels: Pixels
    width: int
    height: int
    phash: int


def decode(
    data: bytes,
    max_pixels: int = ArchiveConfig.max_pixels,
    turns: Turns | None = None,
    allocate: Callable[[], Pixels] | None = None,
    mode: str = EXACT,
) -> Picture:
    """Decode an image file's bytes: upright, alpha on white, first frame, 8-bit RGB.

    Args:
        data: The file's bytes.
        max_pixels: Photos with more are refused by their header, before anything is decoded.
        turns: Lets photos that need much memory be decoded one at a time; None does not.
        allocate: Returns the array for the resized pixels, as `resize` takes it; called once the photo is decoded.
        mode: `exact`, or `fast` to decode a large JPEG to a fraction of its size.

    Raises:
        DecodeError: The bytes are not a picture that can be decoded.
    """
    with explain_lack_of_memory():
        opened = open_image(data, max_pixels)
        with turns.hold(opened.pixels) if turns else nullcontext():
            photo, orientation = first_frame(opened, FAST_SIDE if mode == FAST else None, reuse=True)
            out = allocate() if allocate else np.empty((SIDE, SIDE, 3), np.float32)
            return _picture(opened, photo, orientation, out)


def _picture(opened: OpenImage, photo: NDArray[np.uint8], orientation: int, out: Pixels) -> Picture:
    """Hash a decoded photo and resize its centre square into `out`; only the result is turned, which is less work."""
    scale = _scale(opened, photo)
    width, height = opened.image.size if scale > 1 else photo.shape[1::-1]
    rows, columns, sides = _centre_square(width, height, scale, orientation)
    phash = PerceptualHash(photo, orientation)
    resize(photo[rows, columns], out, sides, lambda stop: phash.read(rows.start + stop))
    if (turned := upright(out, orientation)) is not out:
        out[:] = turned
    if is_transposed(orientation):
        width, height = height, width
    width, height = opened.full_size or (width, height)
    return Picture(out, width, height, phash.value())


def _scale(opened: OpenImage, photo: NDArray[np.uint8]) -> int:
    """Return to which part of its size a photo was decoded: 1 if libjpeg objected to it, or if it is no JPEG."""
    is_whole = photo.shape[0] * photo.shape[1] >= opened.pixels
    return 1 if is_whole or opened.image.format != "JPEG" else jpeg_scale(opened.image.size, FAST_SIDE)


def _centre_square(
    width: int, height: int, scale: int, orientation: int
) -> tuple[slice, slice, tuple[SquareSide, SquareSide]]:
    """Return which decoded rows and columns the centre square of the upright photo takes, and where it is in them.

    Args:
        width, height: Of the photo before it is upright, in pixels of the full size.
        scale: Each decoded pixel is the mean of `scale` x `scale`.
        orientation: As in EXIF.
    """
    side = min(width, height)
    from_below, from_right = is_reversed(orientation)
    rows, vertical = _square_side(height, side, scale, from_below)
    columns, horizontal = _square_side(width, side, scale, from_right)
    return rows, columns, (vertical, horizontal)


def _square_side(length: int, side: int, scale: int, is_from_end: bool) -> tuple[slice, SquareSide]:
    """Return which decoded pixels a side of the centre square takes, and where it is in them.

    Args:
        length: Of the photo's side, in pixels of the full size.
        side: Of the square's.
        scale: Each decoded pixel is the mean of so many.
        is_from_end: Whether the last pixel is the first one of the upright photo. If an odd number of pixels is
            cropped, one more goes from the upright photo's end.
    """
    start = (length - side + is_from_end) // 2
    square = SquareSide(side, scale, start % scale)
    return slice(start // scale, start // scale + square.decoded), square
