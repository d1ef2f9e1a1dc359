"""RAW files of cameras: their JPEG preview, upright, or where there is none of use, the sensor's values at half size.

Which files are RAW is told by their content: an ordinary TIFF holds no values of a colour filter array.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.jpeg import read_header
from flowers_batch.decoding.orientation import byte_order, exif_orientation
from flowers_batch.decoding.upright import is_transposed

try:
    import rawpy
except ImportError:  # the extra is not installed
    rawpy = None  # type: ignore[assignment]

# First bytes: Fujifilm's RAF, Panasonic's RW2, and Olympus' ORF in three versions.
_MAGIC = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR")
_CR2, _CR2_AT = b"CR\2", 8  # Canon's mark in a TIFF header
_CR3_BRAND = b"crx "
# Tags of TIFF 6.0 and its supplement 1.
_KIND, _COMPRESSION, _PHOTOMETRIC, _MAKE, _SUBDIRECTORIES = 254, 259, 262, 271, 330
_SENSOR = {32803, 34892}  # photometric interpretations of TIFF/EP and DNG: colour filter array, linear raw
_OWN_COMPRESSIONS = {32767, 32770, 34713, 65535}  # Sony's, Samsung's, Nikon's, Pentax'
_REDUCED = 1  # bit of `_KIND`: a smaller version of another image in the file
_MAX_DIRECTORIES, _MAX_ENTRIES = 32, 500  # that are looked through; cameras write fewer than ten of a hundred
_SCAN_BYTES = 256  # of a preview's first scan: they are found in the file
_EXIF_AT, _EXIF_BYTES = 6, 1 << 16  # of a JPEG: LibRaw writes EXIF there unless the preview has it
_EXIF_OF_FLIP = (1, 2, 4, 3, 5, 8, 6, 7)  # orientations by LibRaw's `flip`


@dataclass(frozen=True)
class Raw:
    """What a RAW file says of its photo.

    Attributes:
        width, height: Of the upright photo.
        preview: The largest JPEG in the file; None if there is none.
        flip: How the sensor's picture is turned upright, as an orientation of EXIF.
    """

    width: int
    height: int
    preview: bytes | None
    flip: int

    def preview_orientation(self, width: int, height: int) -> int:
        """Return the orientation of a preview of that size.

        It is the one that the preview states, or else the file's; but a preview that some camera has turned upright is
        not turned again, which its proportions tell.
        """
        stated = exif_orientation((self.preview or b"")[_EXIF_AT : _EXIF_AT + _EXIF_BYTES])
        candidates = [self.flip, 1] if stated is None else [stated, self.flip, 1]
        return next((one for one in candidates if self._fits(width, height, one)), candidates[0])

    def _fits(self, width: int, height: int, orientation: int) -> bool:
        if is_transposed(orientation):
            width, height = height, width
        return width == height or self.width == self.height or (width > height) == (self.width > self.height)


def is_raw(data: bytes) -> bool:
    """Return whether a file's content is that of a camera's RAW file."""
    if data.startswith(_MAGIC):
        return True
    if data[4:8] == b"ftyp":
        return data[8:12] == _CR3_BRAND
    order = byte_order(data)
    return order is not None and (data.startswith(_CR2, _CR2_AT) or _has_sensor_values(data, order))


def _has_sensor_values(data: bytes, order: Literal["little", "big"]) -> bool:
    """Return whether one of a TIFF's directories describes what a sensor saw, or the first is a camera's thumbnail."""
    big = 43 in data[2:4]  # BigTIFF
    width, start, digits = (8, 8, 8) if big else (4, 4, 2)
    size = 4 + 2 * width

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    waiting, first = [number(start, width)], set[int]()
    for at in waiting:  # which grows
        entries = number(at, digits)
        for entry in range(at + digits, at + digits + size * min(entries, _MAX_ENTRIES), size):
            tag, value_at = number(entry, 2), entry + 4 + width
            value = number(value_at, 2)
            if (tag == _PHOTOMETRIC and value in _SENSOR) or (tag == _COMPRESSION and value in _OWN_COMPRESSIONS):
                return True
            if at == waiting[0] and (tag != _KIND or value & _REDUCED):
                first.add(tag)
            if tag == _SUBDIRECTORIES:
                count = min(number(entry + 4, width), _MAX_DIRECTORIES)
                places = value_at if count == 1 else number(value_at, width)
                waiting += [number(places + width * one, width) for one in range(count)]
        waiting.append(number(at + digits + size * entries, width))
        waiting = waiting[:_MAX_DIRECTORIES]
    return {_KIND, _MAKE, _SUBDIRECTORIES} <= first


def read_raw(data: bytes) -> Raw:
    """Read a RAW file's size and preview.

    Raises:
        DecodeError: The file is broken, LibRaw does not know it, or LibRaw is not installed.
    """
    with _opened(data) as raw:
        sizes = raw.sizes
        flip = _EXIF_OF_FLIP[sizes.flip] if 0 <= sizes.flip < len(_EXIF_OF_FLIP) else 1
        width, height = sizes.width, sizes.height
        if 0 < sizes.crop_width <= width and 0 < sizes.crop_height <= height:  # what the camera's own JPEG shows
            width, height = sizes.crop_width, sizes.crop_height
        if is_transposed(flip):
            width, height = height, width
        return Raw(width, height, _preview(raw, data), flip)


def develop(data: bytes) -> NDArray[np.uint8]:
    """Return a RAW file's photo at half its size, upright, as LibRaw makes it: uint8 [height, width, 3], RGB.

    Raises:
        DecodeError: The file is broken, or LibRaw does not know how its values are stored.
    """
    with _opened(data) as raw:
        return raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8)


def _preview(raw: Any, data: bytes) -> bytes | None:
    try:
        thumbnail = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError, NotImplementedError):
        return None
    return _within(thumbnail.data, data) if thumbnail.format == rawpy.ThumbFormat.JPEG else None


def _within(preview: bytes, data: bytes) -> bytes:
    """Return a preview without what would be beyond its file's end: LibRaw returns what was in memory there before."""
    _, scan, _ = read_header(preview)
    if preview[scan:] in data:
        return preview
    at = data.rfind(preview[scan : scan + _SCAN_BYTES])  # the last place: a file may repeat them to get more
    return preview[: scan + len(data) - at] if at >= 0 else preview[:scan]


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    """Open a file with LibRaw, whose errors become a `DecodeError`."""
    if rawpy is None:
        raise DecodeError(
            "unsupported",
            "It is a camera's RAW file, which needs the extra `raw`: run pip install 'flowers-batch[raw]'.",
        )
    try:
        with rawpy.RawPy() as raw:
            raw.open_buffer(io.BytesIO(data))
            yield raw
    except (rawpy.LibRawUnsufficientMemoryError, rawpy.LibRawMemPoolOverflowError) as error:
        raise MemoryError from error
    except (rawpy.LibRawFileUnsupportedError, rawpy.LibRawNotImplementedError, rawpy.NotSupportedError):
        raise DecodeError("unsupported", "It is a RAW file of a kind that LibRaw does not know.") from None
    except rawpy.LibRawTooBigError:
        raise DecodeError("too_large", "It is a RAW file that LibRaw finds too large.") from None
    except rawpy.LibRawError as error:
        reason = error.args[0] if error.args else ""
        told = reason.decode("ascii", "replace") if isinstance(reason, bytes) else str(reason)
        raise DecodeError("truncated", f"The RAW file is broken or cut short: {told}") from None
