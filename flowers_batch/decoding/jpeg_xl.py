"""JPEG XL files: without their metadata, and their size as the header states it (ISO/IEC 18181-1 and -2)."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding.errors import DecodeError, too_many
from flowers_batch.decoding.heif import all_boxes
from flowers_batch.decoding.late_image import LateImage

try:
    import imagecodecs
except ImportError:  # the extra is not installed
    imagecodecs = None  # type: ignore[assignment]

_CODESTREAM = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_MAX_BOXES = 100_000
_HEADER_BYTES = 256  # all that is read of it takes fewer
# Widths that are given by the height (18181-1, table A.2).
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
# Each number is the first of its kind plus so many bits: table A.1, and the formats of B.2 and B.3.
_SIDE = ((1, 9), (1, 13), (1, 18), (1, 30))
_PREVIEW, _PREVIEW_BY_8 = ((1, 6), (65, 8), (321, 10), (1345, 12)), ((16, 0), (32, 0), (1, 5), (33, 9))
_TICKS, _TICK_PARTS = ((100, 0), (1000, 0), (1, 10), (1, 30)), ((1, 0), (1001, 0), (1, 8), (1, 10))
_LOOPS = ((0, 0), (0, 3), (0, 16), (0, 32))
_INTEGER_BITS = ((8, 0), (10, 0), (12, 0), (1, 6))
_MAX_BITS = 16  # of values that have a white


def is_jpeg_xl(data: bytes) -> bool:
    """Return whether a file's content is JPEG XL."""
    return data.startswith((_CODESTREAM, _CONTAINER))


def strip_jpeg_xl(data: bytes) -> bytes:
    """Return the codestream, which states the orientation; a container has EXIF and a JPEG's own parts beside it.

    Raises:
        DecodeError: It has far more boxes than a photo.
    """
    if not data.startswith(_CONTAINER):
        return data
    view = memoryview(data)  # slices are no copies
    parts: list[memoryview] = []
    for place, (kind, start, end) in enumerate(all_boxes(data, 0, len(data))):
        if place == _MAX_BOXES:
            raise too_many(_MAX_BOXES, "boxes")
        if kind == b"jxlc":
            return bytes(view[start:end])
        if kind == b"jxlp":
            parts.append(view[start + 4 : end])  # behind its number
    return b"".join(parts)


def open_jpeg_xl(codestream: bytes) -> LateImage:
    """Read a JPEG XL's header.

    Args:
        codestream: As `strip_jpeg_xl` returns it.

    Raises:
        DecodeError: It has values of a kind that is not supported, or no whole header, or libjxl is not installed.
    """
    if imagecodecs is None:
        raise DecodeError(
            "unsupported", "It is a JPEG XL, which needs the extra `jxl`: run pip install 'flowers-batch[jxl]'."
        )
    width, height, bits = _Header(codestream).read()
    return LateImage("JXL", (width, height), partial(_decoded, codestream, bits))


def _decoded(codestream: bytes, bits: int) -> NDArray[np.uint8]:
    """Return the first frame, upright: uint8 [height, width] or [height, width, 2, 3 or 4]."""
    values = imagecodecs.jpegxl_decode(codestream, index=0, numthreads=1)  # one thread per photo
    if bits == 8:
        return values
    scaled = np.empty(values.shape, np.uint8)
    cv2.convertScaleAbs(values, scaled, 255 / (2**bits - 1))
    return scaled


class _Header:
    """The beginning of a codestream: numbers of any count of bits, the lowest first.

    Args:
        codestream: It.
    """

    def __init__(self, codestream: bytes):
        self._is_whole = codestream.startswith(_CODESTREAM)
        self._bits = int.from_bytes(codestream[2:_HEADER_BYTES], "little")
        self._left = 8 * len(codestream[2:_HEADER_BYTES])

    def read(self) -> tuple[int, int, int]:
        """Return width and height, not yet upright, and the bits of each value."""
        width, height = self._size()
        bits = 8
        if not self._number(1):  # otherwise all that follows is as in most files
            if self._number(1):
                self._skip_extra_fields()
            is_float = self._number(1)
            bits = self._choice(_INTEGER_BITS)
            if is_float or bits > _MAX_BITS:
                raise DecodeError("unsupported", "Its values are not plain ones of up to 16 bits.")
        if not self._is_whole or self._left < 0:
            raise DecodeError("truncated", "The image is broken or cut short: its header is not complete.")
        return width, height, bits

    def _skip_extra_fields(self) -> None:
        self._number(3)  # the orientation, which libjxl applies
        if self._number(1):
            self._size()  # of its display
        if self._number(1):
            self._skip_preview()
        if self._number(1):  # it is an animation
            self._choice(_TICKS)
            self._choice(_TICK_PARTS)
            self._choice(_LOOPS)
            self._number(1)

    def _skip_preview(self) -> None:
        sides = _PREVIEW_BY_8 if self._number(1) else _PREVIEW
        self._choice(sides)
        if not self._number(3):
            self._choice(sides)

    def _size(self) -> tuple[int, int]:
        is_small = self._number(1)

        def side() -> int:
            return 8 * (self._number(5) + 1) if is_small else self._choice(_SIDE)

        height, ratio = side(), self._number(3)
        if not ratio:
            return side(), height
        above, below = _RATIOS[ratio - 1]
        return height * above // below, height

    def _choice(self, kinds: tuple[tuple[int, int], ...]) -> int:
        first, bits = kinds[self._number(2)]
        return first + self._number(bits)

    def _number(self, bits: int) -> int:
        number = self._bits & ((1 << bits) - 1)
        self._bits >>= bits
        self._left -= bits
        return number
