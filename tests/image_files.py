"""Image files of every format for tests of decoding, and how far their pictures are off."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

# Each format, and the largest error of a pixel that it causes.
FORMATS = {
    "PNG": ({}, 0),
    "BMP": ({}, 0),
    "TIFF": ({"compression": "tiff_lzw"}, 0),
    "GIF": ({}, 0),
    "WEBP": ({"lossless": True}, 0),
    "HEIF": ({"quality": -1, "chroma": 444, "matrix_coefficients": 0}, 0),
    "JPEG": ({"quality": 100, "subsampling": 0}, 2),
    "MPO": ({"quality": 100, "subsampling": 0}, 2),
    "JPEG2000": ({}, 0),
    "AVIF": ({"quality": 100, "subsampling": "4:4:4"}, 4),
}

UNDO = {  # what a camera did to the upright photo, for each EXIF orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def blocks(height: int = 48, width: int = 72) -> np.ndarray:
    """Even squares of a few colours, which all formats keep nearly exactly and any rotation changes."""
    colours = np.array([(230, 30, 30), (30, 200, 30), (30, 30, 220), (240, 240, 240), (20, 20, 20)], np.uint8)
    small = colours[np.random.default_rng(7).integers(0, len(colours), (height // 8, width // 8))]
    return small.repeat(8, 0).repeat(8, 1)


def off(photo: np.ndarray, expected: np.ndarray) -> int:
    """Return the largest difference of two pictures' values."""
    assert photo.shape == expected.shape
    assert photo.dtype == np.uint8
    return int(np.abs(photo.astype(int) - expected.astype(int)).max())


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colours: int, values: bytes, clear: bytes = b"") -> bytes:
    """A PNG of those values, whose size may differ from that in its header; `clear` is its transparent colour."""
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        *([(b"tRNS", clear)] if clear else []),
        (b"IDAT", zlib.compress(values)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def box(kind: bytes, content: bytes, version: int | None = None) -> bytes:
    """A box of ISO 14496-12, of those that have a version and flags or of the others."""
    content = content if version is None else struct.pack(">I", version << 24) + content
    return struct.pack(">I", len(content) + 8) + kind + content


def tiff(values: np.ndarray, **options: Any) -> bytes:
    """A TIFF of a kind that Pillow does not write."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


@contextmanager
def little_memory() -> Iterator[None]:
    """Limit this process, including libraries' allocations, to 64 MiB more than it has."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
