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

from flowers_batch.config import ArchiveConfig
from flowers_batch.decoding.errors import explain_lack_of_memory
from flowers_batch.decoding.formats import open_image, upright_pixels
from flowers_batch.decoding.perceptual_hash import perceptual_hash
from flowers_batch.decoding.resizing import Pixels, resize

Image.init()
# One thread per photo: the other cores decode other photos.
pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


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
) -> Picture:
    """Decode an image file's bytes: upright, alpha on white, first frame, 8-bit RGB.

    Args:
        data: The file's bytes.
        max_pixels: Photos with more are refused by their header, before anything is decoded.
        turns: Lets photos that need much memory be decoded one at a time; None does not.
        allocate: Returns the array for the resized pixels, as `resize` takes it; called once the photo is decoded.

    Raises:
        DecodeError: The bytes are not a picture that can be decoded.
    """
    with explain_lack_of_memory():
        opened = open_image(data, max_pixels)
        with turns.hold(opened.pixels) if turns else nullcontext():
            photo = upright_pixels(opened)
            height, width = photo.shape[:2]
            full_width, full_height = opened.full_size or (width, height)
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            phash = perceptual_hash(photo)
            square = resize(photo[top : top + side, left : left + side], allocate and allocate())
            return Picture(square, full_width, full_height, phash)


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
