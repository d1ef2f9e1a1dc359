"""JPEG files: without their metadata, and decoded as libjpeg does where nothing is missing."""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from flowers_batch.decoding.orientation import first_orientation

# Markers, the byte after 0xFF (ITU-T T.81, table B.1).
_EOI, _SOS, _APP0, _APP1, _APP14, _APP15, _COM = 0xD9, 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_ALONE = {0x01, *range(0xD0, 0xDA)}  # without a length: TEM, RST0 to RST7, SOI, EOI
_HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended sequential, progressive
_END = b"\xff\xd9"
# A marker in coded data: neither a stuffed 0xFF nor a restart.
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


def read_header(data: bytes) -> tuple[bytes, int, int]:
    """Return a JPEG file's header without metadata, where what follows it begins, and the orientation.

    Of comments and application segments only those stay that say what the colours are (JFIF's, Adobe's), if they are
    as long as libjpeg expects; libjpeg ignores all others. The header ends with the first scan's own header.
    """
    kept, at = [data[:2]], 2
    exif = xmp = b""
    while (at := data.find(b"\xff", at)) >= 0:  # libjpeg skips what stands between segments
        marker = data[at + 1 : at + 2]
        if marker in (b"\xff", b"\0"):  # padding, or junk
            at += 1
            continue
        kind = marker[0] if marker else _EOI
        end = at + 2 if kind in _ALONE else at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if kind == _APP1:
            content = data[at + 4 : end]
            if content.startswith(_EXIF):
                exif = exif or content
            elif content.startswith(_XMP):
                xmp = content
        elif not (_APP0 <= kind <= _APP15 or kind == _COM) or _tells_colours(kind, data[at + 4 : end]):
            kept.append(data[at:end])
        at = end
        if kind in (_SOS, _EOI):
            break
    return b"".join(kept), at if at >= 0 else len(data), first_orientation(exif, xmp)


def strip_jpeg(data: bytes) -> bytes:
    """Return a JPEG file without the metadata in its header."""
    header, scans, _ = read_header(data)
    return header + data[scans:]


def _tells_colours(marker: int, content: bytes) -> bool:
    """Return whether libjpeg reads an application segment (jdmarker.c, `examine_app0` and `examine_app14`)."""
    return (marker == _APP0 and len(content) >= 14 and content.startswith(b"JFIF\0")) or (
        marker == _APP14 and len(content) >= 12 and content.startswith(b"Adobe")
    )


def decode_jpeg(data: bytes, min_side: int | None = None) -> NDArray[np.uint8] | None:
    """Decode a JPEG as uint8 [height, width, 3], or return None if libjpeg has something to object.

    Args:
        data: The file's bytes, of a grey, YCbCr or RGB photo.
        min_side: If given, it may be decoded to 1/8, 1/4 or 1/2 of its size as long as both sides keep this many
            pixels.
    """
    side = min_side or 0
    with suppress(ValueError):  # it raises for warnings, too
        return simplejpeg.decode_jpeg(data, min_height=side, min_width=side)
    if only_end_is_missing(data):
        with suppress(ValueError):
            return simplejpeg.decode_jpeg(data + _END, min_height=side, min_width=side)
    return None


def with_end(data: bytes) -> bytes:
    """Return a CMYK JPEG, with its end marker if only that is missing."""
    if only_end_is_missing(data):
        with suppress(ValueError):
            simplejpeg.decode_jpeg(data + _END, "CMYK")
            return data + _END
    return data


def only_end_is_missing(data: bytes) -> bool:
    """Return whether a JPEG has no end marker, but a scan of each coefficient of each component.

    libjpeg notices when the last scan is cut short, but not that more scans should follow. Arithmetic coding does not
    allow it to notice either, so that such files need their end marker.
    """
    missing: dict[int, set[int]] = {}  # coefficients that are not exact yet, by component
    at = 2
    while found := _MARKER.search(data, at):
        marker, start = found[1][0], found.end()
        if marker == _EOI:
            return False
        if marker in _ALONE:
            at = start
            continue
        at = start + max(2, int.from_bytes(data[start : start + 2], "big"))
        content = data[start + 2 : at]
        if marker in _HUFFMAN_FRAMES:
            missing = {component: set(range(64)) for component in content[6::3]}
        elif marker == _SOS and len(content) == 4 + 2 * content[0]:
            first, last, bits = content[-3:]
            if bits & 15 == 0:  # the scan holds the last bit
                for component in content[1:-3:2]:
                    missing.get(component, set()).difference_update(range(first, last + 1))
    return bool(missing) and not any(missing.values())
