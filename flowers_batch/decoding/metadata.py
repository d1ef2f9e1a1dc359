"""Image files without their metadata, so that no fault in it costs the photo, nor its size time or memory.

The libraries read text, profiles, EXIF and XMP before the pixels, and refuse the file for what is wrong with them.
What is not understood stays as it is, for the libraries to judge. A file with far more parts than a photo is refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress

from flowers_batch.decoding.errors import too_many
from flowers_batch.decoding.heif import strip_heif
from flowers_batch.decoding.jpeg import read_header
from flowers_batch.decoding.jpeg_2000 import is_jpeg_2000, strip_jpeg_2000
from flowers_batch.decoding.jpeg_xl import is_jpeg_xl, strip_jpeg_xl
from flowers_batch.decoding.orientation import byte_order, first_orientation, orientation_entry, xmp_orientation

_PNG = b"\x89PNG\r\n\x1a\n"
# Of a PNG or WebP; a photo of a hundred megapixels in chunks of 8 KiB, which many programs write, has 70,000.
_MAX_CHUNKS = 200_000
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}
_PNG_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_EXIF_TEXT, _EXIF_PROFILE, _XMP_TEXT = _PNG_TEXTS = (b"exif", b"Raw profile type exif", b"XML:com.adobe.xmp")
_MAX_TEXT_BYTES = 1 << 20  # of a compressed text that are looked through for the orientation
_WEBP_PIXELS = {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}  # in VP8X: whether the file has such a chunk
# Tags of TIFF 6.0, its supplements and libtiff that say where the pixels are and how to read them.
_TIFF_PIXELS = {
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332),
    *(333, 334, 336, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 0xBC01),
    *range(32995, 33000),
}
_TIFF_XMP = 700
_TIFF_STRIPS = (273, 324)  # where strips or tiles begin
_MAX_STRIPS = 200_000  # a photo of fifty megapixels in the smallest tiles, of 16x16


def strip_metadata(data: bytes) -> tuple[bytes, int]:
    """Return an image file without its metadata, and the orientation that these state (1 to 8, or a number unknown).

    What comes after the first frame may be left out as well, and of a JPEG all that follows its header is: copying
    it would take time.
    """
    if data.startswith(b"\xff\xd8\xff"):
        header, _, orientation = read_header(data)
        return header, orientation
    if data.startswith(_PNG):
        return _strip_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _strip_webp(data)
    if data[4:8] == b"ftyp":
        return strip_heif(data), 1
    if is_jpeg_xl(data):
        return strip_jpeg_xl(data), 1  # libjxl turns it upright
    if is_jpeg_2000(data):
        return strip_jpeg_2000(data)
    if byte_order(data):
        return _strip_tiff(data)
    return data, 1


def _strip_png(data: bytes) -> tuple[bytes, int]:
    view = memoryview(data)  # slices are no copies
    kept: list[bytes | memoryview] = [_PNG]
    exif = b""
    texts: dict[bytes, tuple[bytes, int, int]] = {}  # the last one of each keyword: unpacking all would take long
    for kind, at, end in _png_chunks(data):
        if kind in _PNG_PIXELS:
            kept.append(view[at - 8 : end + 4])
        elif kind == b"eXIf":
            exif = data[at:end]
        elif kind in _PNG_TEXT_CHUNKS:
            keyword = data[at : at + 80].partition(b"\0")[0]
            if keyword in _PNG_TEXTS:
                texts[keyword] = kind, at, end

    def text(keyword: bytes) -> bytes:
        kind, at, end = texts.get(keyword, (b"tEXt", 0, 0))
        return _png_text(kind, data[at:end])

    exif = exif or text(_EXIF_TEXT) or raw_profile(text(_EXIF_PROFILE))
    # The last chunk may be cut short: no end is put behind it, and Pillow needs none.
    return b"".join(kept), first_orientation(exif, text(_XMP_TEXT))


def png_texts(data: bytes, keywords: Collection[bytes]) -> dict[bytes, bytes]:
    """Return the texts of a PNG by some keywords: of equal ones the last, of a long compressed one the beginning.

    Raises:
        DecodeError: It has far more chunks than a photo.
    """
    found: dict[bytes, tuple[bytes, int, int]] = {}
    for kind, at, end in _png_chunks(data):
        if kind in _PNG_TEXT_CHUNKS and (keyword := data[at : at + 80].partition(b"\0")[0]) in keywords:
            found[keyword] = kind, at, end
    return {keyword: _png_text(kind, data[at:end]) for keyword, (kind, at, end) in found.items()}


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of each chunk's content; the last may be cut short."""
    at = len(_PNG)
    for _ in range(_MAX_CHUNKS):
        kind = data[at + 4 : at + 8]
        if not kind.isalnum() or kind == b"IEND":
            return
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        yield kind, at + 8, end
        at = end + 4
    raise too_many(_MAX_CHUNKS, "chunks")


def _png_text(kind: bytes, chunk: bytes) -> bytes:
    """Return the text of a chunk (PNG specification 11.3.3), of a long one the beginning, or nothing."""
    _, _, text = chunk.partition(b"\0")
    packed = kind == b"zTXt"
    if packed:
        text = text[1:]
    elif kind == b"iTXt":
        packed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
    if not packed:
        return text
    with suppress(zlib.error):
        return zlib.decompressobj().decompress(text, _MAX_TEXT_BYTES)
    return b""


def raw_profile(profile: bytes) -> bytes:
    """Return the data in a raw profile as ImageMagick writes it: three lines, then hexadecimal digits."""
    with suppress(ValueError):
        digits = b"".join(profile[:_MAX_TEXT_BYTES].split(b"\n", 3)[3:])
        return bytes.fromhex(digits.decode("ascii", "replace"))  # which skips the ends of lines
    return b""


def _strip_webp(data: bytes) -> tuple[bytes, int]:
    """Return the chunks that pixels need, under a header that states their size (WebP container specification)."""
    kept: list[bytes] = []
    found = dict.fromkeys(_WEBP_FLAGS, b"")
    at, flags = 12, 0
    extended = data[at : at + 4] == b"VP8X"
    for _ in range(_MAX_CHUNKS):
        kind = data[at : at + 4]
        if len(kind) < 4 or (kept and not extended):  # without VP8X there is one chunk
            break
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        content, end = data[at + 8 : at + 8 + size], at + 8 + size + size % 2
        if kind == b"VP8X" and not kept:
            flags = content[0] if content else 0
            kept.append(data[at : at + 8] + bytes([flags & ~sum(_WEBP_FLAGS.values())]) + data[at + 9 : end])
        elif kind in _WEBP_PIXELS:
            kept.append(data[at:end])
        elif flags & _WEBP_FLAGS.get(kind, 0):
            found[kind] = found[kind] or content
        at = end
    else:
        raise too_many(_MAX_CHUNKS, "chunks")
    size = sum(map(len, kept)) + 4 & 0xFFFFFFFF
    stripped = b"".join((b"RIFF", struct.pack("<I", size), b"WEBP", *kept))
    return stripped, first_orientation(found[b"EXIF"], found[b"XMP "])


def _strip_tiff(data: bytes) -> tuple[bytes, int]:
    """Rewrite the first directory with the tags that pixels need alone, and without a next one."""
    order = byte_order(data)
    assert order
    big = 43 in data[2:4]  # BigTIFF
    width, start, digits = (8, 8, 8) if big else (4, 4, 2)

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    directory = number(start, width)
    first, size = directory + digits, 4 + 2 * width
    kept: dict[int, bytes] = {}
    orientation, xmp = None, slice(0)
    for at in range(first, min(first + size * number(directory, digits), len(data) - size + 1), size):
        entry, tag = data[at : at + size], number(at, 2)
        if tag in _TIFF_PIXELS:
            kept.setdefault(tag, entry)
            # Of more than the file can hold, the count is broken.
            if tag in _TIFF_STRIPS and _MAX_STRIPS < number(at + 4, width) <= len(data) // 2:
                raise too_many(_MAX_STRIPS, "strips or tiles")
        elif tag == _TIFF_XMP:
            xmp_at = number(at + 4 + width, width)
            xmp = slice(xmp_at, xmp_at + number(at + 4, width))
        elif orientation is None:
            orientation = orientation_entry(entry, order, width)
    if orientation is None:
        orientation = xmp_orientation(data[xmp])
    rewritten = len(kept).to_bytes(digits, order) + b"".join(kept.values()) + bytes(width)
    if kept:
        view = memoryview(data)  # slices are no copies
        data = b"".join((view[:directory], rewritten, view[directory + len(rewritten) :]))
    return data, orientation or 1
