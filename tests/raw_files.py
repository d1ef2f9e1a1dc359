"""RAW files for tests: DNGs with previews, as cameras and Adobe's converter lay them out (DNG specification 1.4)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

_FORMS = {1: "B", 3: "H", 4: "I", 5: "II", 10: "ii"}  # types of TIFF 6.0; a rational is two numbers
_CFA, _THUMBNAIL, _JPEG = 32803, 1, 7
_OTHER_AT, _PIXELS_AT = 2048, 4096  # bytes of a file
_IDENTITY = [number for row in np.eye(3, dtype=int) for value in row for number in (int(value), 1)]

Tags = dict[int, tuple[int, Sequence[int] | bytes]]


def directory(at: int, tags: Tags, order: str = "<") -> bytes:
    """A TIFF directory that begins there, followed by the values that do not fit into it; tags have type and values."""
    entries, rest = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        content = values if isinstance(values, bytes) else _packed(order, kind, values)
        count = len(content) if kind == 2 else len(content) // struct.calcsize("=" + _FORMS[kind])
        if len(content) > 4:
            place = at + 6 + 12 * len(tags) + len(rest)
            rest += content + bytes(len(content) % 2)
            content = struct.pack(order + "I", place)
        entries += struct.pack(order + "HHI", tag, kind, count) + content.ljust(4, b"\0")
    return struct.pack(order + "H", len(tags)) + entries + bytes(4) + rest


def _packed(order: str, kind: int, values: Sequence[int]) -> bytes:
    return struct.pack(f"{order}{len(values)}{_FORMS[kind][0]}", *values)


def mosaic(photo: np.ndarray) -> np.ndarray:
    """What a sensor with red, green, green and blue filters sees of a photo: uint16 [height, width]."""
    linear = (photo / 255.0) ** 2.2 * 60000
    values = np.empty(photo.shape[:2], np.uint16)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        values[row::2, column::2] = linear[row::2, column::2, channel]
    return values


def dng(photo: np.ndarray, preview: bytes | None, orientation: int = 1, in_first: bool = False) -> bytes:
    """A DNG of what a sensor saw, not yet upright.

    Args:
        photo: uint8 [height, width, 3], as the sensor's mosaic has it.
        preview: A JPEG; None makes a file without one.
        orientation: Of both, as in EXIF.
        in_first: Whether the sensor's values are in the first directory and the preview in another; otherwise the
            first one has the preview, as most cameras' files do.
    """
    values = mosaic(photo)
    height, width = values.shape
    sensor = _places(values.nbytes, _PIXELS_AT, width, height) | {
        254: (4, [0]),
        258: (3, [16]),
        259: (3, [1]),
        262: (3, [_CFA]),
        277: (3, [1]),
        33421: (3, [2, 2]),
        33422: (1, [0, 1, 1, 2]),
        50714: (3, [0]),
        50717: (4, [60000]),
    }
    directories = [sensor]
    if preview is not None:
        small = _places(len(preview), _PIXELS_AT + values.nbytes, *_jpeg_size(preview)) | {
            254: (4, [_THUMBNAIL]),
            258: (3, [8, 8, 8]),
            259: (3, [_JPEG]),
            262: (3, [6]),
            277: (3, [3]),
        }
        directories = [sensor, small] if in_first else [small, sensor]
    directories[0] |= {
        271: (2, b"Test\0"),
        272: (2, b"Camera\0"),
        274: (3, [orientation]),
        330: (4, [_OTHER_AT] * (len(directories) - 1)),
        50706: (1, [1, 4, 0, 0]),
        50708: (2, b"Test Camera\0"),
        50721: (10, _IDENTITY),
        50728: (5, [1, 1] * 3),
        50778: (3, [21]),
    }
    head = b"II*\0\x08\0\0\0" + directory(8, directories[0])
    if preview is not None:
        head = head.ljust(_OTHER_AT, b"\0") + directory(_OTHER_AT, directories[1])
    return head.ljust(_PIXELS_AT, b"\0") + values.tobytes() + (preview or b"")


def _places(size: int, at: int, width: int, height: int) -> Tags:
    """The tags that say how large an image is, and where."""
    return {256: (4, [width]), 257: (4, [height]), 273: (4, [at]), 278: (4, [height]), 279: (4, [size])}


def _jpeg_size(jpeg: bytes) -> tuple[int, int]:
    at = next(at for at in range(len(jpeg)) if jpeg[at] == 0xFF and jpeg[at + 1] in (0xC0, 0xC1, 0xC2))
    height, width = struct.unpack(">HH", jpeg[at + 5 : at + 9])
    return width, height
