"""JPEG files: without their metadata, and decoded as libjpeg does where nothing is missing."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from flowers_batch.decoding.errors import DecodeError, explain_errors, too_many
from flowers_batch.decoding.orientation import first_orientation

# Markers, the byte after 0xFF (ITU-T T.81, table B.1).
_EOI, _SOS, _APP0, _APP1, _APP14, _APP15, _COM = 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
# Without a length: TEM, reserved ones, which libjpeg passes over between restarts, RST0 to RST7, SOI, EOI.
_ALONE = {*range(0xC0), *range(0xD0, 0xDA)}
_HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended sequential, progressive
_END = b"\xff\xd9"
# A marker that is neither a stuffed 0xFF nor a restart. A `+` behind 0xFF would take quadratic time over padding.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_SOS_WORD = 0xDAFF  # a marker that begins a scan, as a little-endian number
_MAX_SEGMENTS = 100_000  # photos with much metadata have some thousand
# libjpeg goes over all blocks for each scan, even if there is nothing in it. Programs write about ten scans. A thousand
# scanned megapixels take 0.6 to 1.4 seconds.
_MAX_SCANS, _MAX_SCANNED_PIXELS = 300, 4_000_000_000
_MAX_REUSED_BYTES = 96_000_000  # of pixels: those of 32 megapixels, of which many may be decoded at once
_MAX_COMPONENTS = 4  # of a scan (ITU-T T.81, B.2.3)
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def read_header(data: bytes) -> tuple[bytes, int, int]:
    """Return a JPEG file's header without metadata, where what follows it begins, and the orientation.

    Of comments and application segments only those stay that say what the colours are (JFIF's, Adobe's), if they are
    as long as libjpeg expects; libjpeg ignores all others. The header ends with the first scan's own header.

    Raises:
        DecodeError: It has far more segments than a photo.
    """
    kept, following = [data[:2]], len(data)
    exif = xmp = b""
    for kind, at, end in _segments(data):
        if kind == _APP1:
            content = data[at + 4 : end]
            if content.startswith(_EXIF):
                exif = exif or content
            elif content.startswith(_XMP):
                xmp = content
        elif not (_APP0 <= kind <= _APP15 or kind == _COM) or _tells_colours(kind, data[at + 4 : end]):
            kept.append(data[at:end])
        if kind in (_SOS, _EOI):
            following = end
            break
    return b"".join(kept), following, first_orientation(exif, xmp)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment; libjpeg skips what stands between them."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            return
        kind, start = found[1][0], found.start()
        length = 0 if kind in _ALONE else max(2, int.from_bytes(data[start + 2 : start + 4], "big"))
        at = start + 2 + length
        yield kind, start, at
    raise too_many(_MAX_SEGMENTS, "segments")


def application_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each application segment in a JPEG's header.

    Raises:
        DecodeError: It has far more segments than a photo.
    """
    for kind, at, end in _segments(data):
        if kind in (_SOS, _EOI):
            return
        if _APP0 <= kind <= _APP15:
            yield kind, data[at + 4 : end]


def has_whole_header(data: bytes) -> bool:
    """Return whether a JPEG's header ends within the first bytes of its file.

    Raises:
        DecodeError: It has far more segments than a photo.
    """
    is_jpeg = data.startswith(b"\xff\xd8\xff")
    return is_jpeg and any(kind in (_SOS, _EOI) and end <= len(data) for kind, _, end in _segments(data))


def strip_jpeg(data: bytes) -> bytes:
    """Return a JPEG file without the metadata in its header."""
    header, scans, _ = read_header(data)
    return header + data[scans:]


def _tells_colours(marker: int, content: bytes) -> bool:
    """Return whether libjpeg reads an application segment (jdmarker.c, `examine_app0` and `examine_app14`)."""
    return (marker == _APP0 and len(content) >= 14 and content.startswith(b"JFIF\0")) or (
        marker == _APP14 and len(content) >= 12 and content.startswith(b"Adobe")
    )


def check_scans(image: JpegImageFile, header: bytes, data: bytes) -> None:
    """Refuse a JPEG whose pixels are coded in far more scans than a photo's.

    Args:
        image: Pillow's image of the header.
        header: As `read_header` returns it.
        data: The file's bytes.

    Raises:
        DecodeError: It has too many scans, for a photo or for its size.
    """
    first_scan = header[-(8 + 2 * image.layers) :]
    if "progressive" not in image.info and first_scan.startswith(b"\xff\xda") and first_scan[4] == image.layers:
        return  # all is in the first scan; libjpeg refuses a second one
    limit = min(_MAX_SCANS, _MAX_SCANNED_PIXELS // max(1, image.width * image.height))
    if _may_have_more_scans(data, limit) and _has_more_scans(data, limit):
        raise DecodeError(
            "unsupported",
            f"Its {image.width} x {image.height} pixels are coded in more than {limit} scans, far more than a photo's.",
        )


def _may_have_more_scans(data: bytes, limit: int) -> bool:
    """Return whether the bytes of a scan's marker, which may stand in metadata too, occur more than `limit` times."""
    halves = (np.frombuffer(data, "<u2", (len(data) - odd) // 2, odd) for odd in (0, 1))
    return sum(int(np.count_nonzero(half == _SOS_WORD)) for half in halves) > limit


def _has_more_scans(data: bytes, limit: int) -> bool:
    scans = 0
    for kind, _, _ in _segments(data):
        scans += kind == _SOS
        if kind == _EOI or scans > limit:
            break
    return scans > limit


def decode_jpeg(
    data: bytes, size: tuple[int, int], min_side: int | None = None, reuse: bool = False
) -> NDArray[np.uint8] | None:
    """Decode a JPEG as uint8 [height, width, 3], or return None if libjpeg has something to object.

    Args:
        data: The file's bytes, of a grey, YCbCr or RGB photo.
        size: Width and height in the header.
        min_side: If given, it is decoded to 1/8, 1/4 or 1/2 of its size, rounded up, as long as both sides keep this
            many pixels (`jpeg_scale`).
        reuse: Decode into memory that is used again for this thread's next photo.
    """
    scale = jpeg_scale(size, min_side) if min_side else 1
    height, width = -(-size[1] // scale), -(-size[0] // scale)
    buffer = _reused.buffer(3 * height * width) if reuse else None
    photo = _decode(data, "RGB", height, width, buffer)
    if photo is None and only_end_is_missing(data):
        photo = _decode(data + _END, "RGB", height, width, buffer)
    return photo


def jpeg_scale(size: tuple[int, int], min_side: int) -> int:
    """Return 8, 4, 2 or 1: to which part of its size a JPEG is decoded so that both sides keep `min_side` pixels."""
    return next((scale for scale in (8, 4, 2) if min(size) >= scale * min_side), 1)


class _ReusedMemory(threading.local):
    """Memory of one thread for decoded photos: new memory would have to be cleared for each of them."""

    _pixels = np.empty(0, np.uint8)

    def buffer(self, size: int) -> NDArray[np.uint8] | None:
        """Return memory of at least `size` bytes, or None if that is too much to keep."""
        if size > _MAX_REUSED_BYTES:
            return None
        if size > len(self._pixels):
            self._pixels = np.empty(0, np.uint8)  # frees it first
            self._pixels = np.empty(size, np.uint8)
        return self._pixels


_reused = _ReusedMemory()


def with_end(data: bytes) -> bytes:
    """Return a CMYK JPEG, with its end marker if only that is missing."""
    if only_end_is_missing(data) and _decode(data + _END, "CMYK") is not None:
        return data + _END
    return data


def _decode(
    data: bytes, colours: str, height: int = 0, width: int = 0, buffer: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8] | None:
    """Decode a JPEG as uint8 [height, width, colours], or return None if libjpeg has something to object.

    Args:
        data: The file's bytes.
        colours: Of the result.
        height, width: The least of each.
        buffer: Memory for the result; None takes new one.
    """
    with explain_errors(), suppress(ValueError):  # it raises for warnings, too
        return simplejpeg.decode_jpeg(data, colours, min_height=height, min_width=width, buffer=buffer)
    return None


def only_end_is_missing(data: bytes) -> bool:
    """Return whether a JPEG has no end marker, but a scan of each coefficient of each component.

    libjpeg notices when the last scan is cut short, but not that more scans should follow. Arithmetic coding does not
    allow it to notice either, so that such files need their end marker.
    """
    missing: dict[int, set[int]] = {}  # coefficients that are not exact yet, by component
    for kind, at, end in _segments(data):
        if kind == _EOI:
            return False
        content = data[at + 4 : end]
        if kind in _HUFFMAN_FRAMES:
            missing = {component: set(range(64)) for component in content[6 : 6 + 3 * _MAX_COMPONENTS : 3]}
        elif kind == _SOS and content and content[0] <= _MAX_COMPONENTS and len(content) == 4 + 2 * content[0]:
            first, last, bits = content[-3:]
            if bits & 15 == 0:  # the scan holds the last bit
                for component in content[1:-3:2]:
                    missing.get(component, set()).difference_update(range(first, min(last, 63) + 1))
    return bool(missing) and not any(missing.values())
