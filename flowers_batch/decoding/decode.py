"""Decoding an image file's bytes to the 224x224 pixels that the network sees: fast, and equal to the reference."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image

from flowers_batch.config import EXACT, FAST, ArchiveConfig
from flowers_batch.decoding.errors import explain_lack_of_memory
from flowers_batch.decoding.formats import OpenImage, open_image, upright_pixels
from flowers_batch.decoding.jpeg import jpeg_scale
from flowers_batch.decoding.orientation import is_reversed, is_transposed
from flowers_batch.decoding.perceptual_hash import perceptual_hash
from flowers_batch.decoding.pixels import SIDE, Pixels
from flowers_batch.decoding.resize_bands import SquareSide
from flowers_batch.decoding.resizing import resize, resize_scaled

Image.init()
# One thread per photo: the other cores decode other photos.
pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


# Both sides of a photo that is decoded to a fraction of its size keep so many pixels. The error that this adds to codes
# is then about that of rounding pixels to bytes: `benchmarks/decode.py` measures both.
FAST_SIDE = 3 * SIDE


class Turns(Protocol):
    """Lets photos that need much memory be decoded one at a time."""

    def hold(self, pixels: int) -> AbstractContextManager[None]:
        """Wait until a photo of so many pixels may be decoded, and let no other be until the block ends."""


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
            photo = upright_pixels(opened, FAST_SIDE if mode == FAST else None, reuse=True)
            phash = perceptual_hash(photo)
            height, width = photo.shape[:2]
            if (scale := _scale(opened, photo)) > 1:
                width, height = _upright_size(opened)
                pixels = _resize_scaled(photo, opened, scale, allocate and allocate())
            else:
                pixels = resize(_centre_square(photo), allocate and allocate())
            full_width, full_height = opened.full_size or (width, height)
            return Picture(pixels, full_width, full_height, phash)


def _centre_square(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return photo[top : top + side, left : left + side]


def _scale(opened: OpenImage, photo: NDArray[np.uint8]) -> int:
    """Return to which part of its size a photo was decoded: 1 if libjpeg objected to it, or if it is no JPEG."""
    is_whole = photo.shape[0] * photo.shape[1] >= opened.pixels
    return 1 if is_whole or opened.image.format != "JPEG" else jpeg_scale(opened.image.size, FAST_SIDE)


def _upright_size(opened: OpenImage) -> tuple[int, int]:
    width, height = opened.image.size
    return (height, width) if is_transposed(opened.orientation) else (width, height)


def _resize_scaled(photo: NDArray[np.uint8], opened: OpenImage, scale: int, out: Pixels | None) -> Pixels:
    """Resize the centre square of an upright photo that was decoded to 1/`scale` of its size."""
    width, height = _upright_size(opened)
    is_reversed_down, is_reversed_across = is_reversed(opened.orientation)
    rows, vertical = _scaled_side(height, min(width, height), scale, is_reversed_down)
    columns, horizontal = _scaled_side(width, min(width, height), scale, is_reversed_across)
    return resize_scaled(photo[rows, columns], vertical, horizontal, out)


def _scaled_side(length: int, side: int, scale: int, is_from_end: bool) -> tuple[slice, SquareSide]:
    """Return which decoded pixels the centre square takes, and where it is in them.

    Args:
        length: Of the photo's side, in pixels of the full size.
        side: Of the square's.
        scale: Each decoded pixel is the mean of so many.
        is_from_end: Whether the last pixel of the file is the first one of the upright photo: libjpeg fills it up.
    """
    start = (length - side) // 2 + (-length % scale if is_from_end else 0)
    square = SquareSide(side, scale, start % scale)
    return slice(start // scale, start // scale + square.decoded), square


def decode_photo(
    data: bytes,
    max_pixels: int = ArchiveConfig.max_pixels,
    min_side: int | None = None,
    turns: Turns | None = None,
) -> NDArray[np.uint8]:
    """Decode a photo in its own size, upright: uint8 [height, width, 3], RGB.

    Args:
        data: The file's bytes.
        max_pixels: Photos with more are refused by their header, before anything is decoded.
        min_side: If given, a JPEG may be decoded to 1/8, 1/4 or 1/2 of its size as long as both sides keep this many
            pixels.
        turns: Lets photos that need much memory be decoded one at a time; None does not.

    Raises:
        DecodeError: The bytes are not a picture that can be decoded.
    """
    with explain_lack_of_memory():
        opened = open_image(data, max_pixels)
        with turns.hold(opened.pixels) if turns else nullcontext():
            return upright_pixels(opened, min_side)
