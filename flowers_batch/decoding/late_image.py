"""Pillow's image of a file that Pillow does not decode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class LateImage(Image.Image):
    """An image whose pixels come from a function, which is called when they are needed.

    Args:
        format: Its name.
        size: Width and height.
        decode: Returns uint8 [height, width] or [height, width, 2, 3 or 4]: grey or RGB, with alpha or without.
    """

    def __init__(self, format: str, size: tuple[int, int], decode: Callable[[], NDArray[np.uint8]]):
        super().__init__()
        self.format = format
        self._size, self._mode = size, "RGB"
        self._decode: Callable[[], NDArray[np.uint8]] | None = decode

    def load(self) -> Any:
        """Decode the pixels, once."""
        if self._decode is not None:
            decoded = Image.fromarray(self._decode())
            self._decode = None
            self.im, self._mode, self._size = decoded.im, decoded.mode, decoded.size
        return super().load()
