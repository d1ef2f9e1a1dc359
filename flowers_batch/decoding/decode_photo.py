"""Decoding an image file's bytes to the photo in its own size."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flowers_batch.config import ArchiveConfig
from flowers_batch.decoding.errors import explain_lack_of_memory
from flowers_batch.decoding.formats import first_frame, open_image
from flowers_batch.decoding.upright import upright


class Turns(Protocol):
    """Lets photos that need much memory be decoded one at a time."""

    def hold(self, pixels: int) -> AbstractContextManager[None]:
        """Wait until a photo of so many pixels may be decoded, and let no other be until the block ends."""


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
            return upright(*first_frame(opened, min_side))
