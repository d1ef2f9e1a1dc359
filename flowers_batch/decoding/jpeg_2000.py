"""JPEG 2000 files: without their metadata, and checked for what makes decoding take long (ISO/IEC 15444-1)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from flowers_batch.decoding.errors import DecodeError, too_many
from flowers_batch.decoding.heif import all_boxes
from flowers_batch.decoding.orientation import first_orientation

_CODESTREAM = b"\xff\x4f\xff\x51"  # markers SOC and SIZ
_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_MAX_BOXES = 100_000
_HEADER_BOXES = {b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef"}  # that pixels need
_EXIF, _XMP = b"JpgTiffExif->JP2", bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # kinds of `uuid` boxes
_SOT, _EOC, _COD = 0xFF90, 0xFFD9, 0xFF52  # markers (table A.2)
_END = b"\xff\xd9"
_SIZ_BYTES = 40  # marker and content up to the components
_MAX_COMPONENTS = 4
_MAX_TILES = 16_384  # a photo of a hundred megapixels in tiles of 128x128 has 6,100
_MAX_TILE_PARTS = 200_000
_MAX_LAYERS = 1000  # programs write up to fifty


def is_jpeg_2000(data: bytes) -> bool:
    """Return whether a file's content is JPEG 2000."""
    return data.startswith((_CODESTREAM, _SIGNATURE))


def strip_jpeg_2000(data: bytes) -> tuple[bytes, int]:
    """Return a JPEG 2000 file without its metadata, and the orientation that these state.

    Raises:
        DecodeError: It has far more boxes than a photo.
    """
    if data.startswith(_CODESTREAM):
        return _with_end(data), 1
    kept: dict[bytes, bytes] = {}
    exif = xmp = b""
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"uuid":
            content = data[start + 16 : end]
            exif = exif or (content if data.startswith(_EXIF, start) else b"")
            xmp = xmp or (content if data.startswith(_XMP, start) else b"")
        elif kind in (b"ftyp", b"jp2h", b"jp2c") and kind not in kept:
            content = data[start:end]
            if kind == b"jp2h":
                content = _stripped_header(content)
            elif kind == b"jp2c":
                content = _with_end(content)
            kept[kind] = _box(kind, content)
    order = (b"ftyp", b"jp2h", b"jp2c")
    stripped = _SIGNATURE + b"".join(kept[kind] for kind in order if kind in kept)
    return stripped, first_orientation(exif, xmp)


def _with_end(codestream: bytes) -> bytes:
    """Return a codestream with its end, without which OpenJPEG decodes nothing; no pixel is missing then."""
    return codestream if codestream.endswith(_END) else codestream + _END


def _stripped_header(content: bytes) -> bytes:
    kept = []
    for kind, start, end in _boxes(content, 0, len(content)):
        if kind == b"pclr":
            _check_palette(content[start:end])
        if kind in _HEADER_BOXES:
            kept.append(_box(kind, content[start:end]))
    return b"".join(kept)


def _check_palette(content: bytes) -> None:
    """Refuse palettes that Pillow would read wrongly: of more than 8 bits, or with a colour twice before others.

    Raises:
        DecodeError: It is one.
    """
    columns = content[2] if len(content) > 2 else 0
    first = 3 + columns
    entries = [content[at : at + columns] for at in range(first, len(content), columns or 1)]
    unique = list(dict.fromkeys(entries))
    if any(bits & 0x7F > 7 for bits in content[3:first]) or entries[: len(unique)] != unique:
        raise DecodeError("unsupported", "Its palette has more than 8 bits, or a colour twice.")


def _box(kind: bytes, content: bytes) -> bytes:
    if len(content) >= 1 << 32 - 8:
        return struct.pack(">I4sQ", 1, kind, len(content) + 16) + content
    return struct.pack(">I4s", len(content) + 8, kind) + content


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    for place, box in enumerate(all_boxes(data, at, end)):
        if place == _MAX_BOXES:
            raise too_many(_MAX_BOXES, "boxes")
        yield box


def codestream_size(stripped: bytes) -> tuple[int, int]:
    """Return width and height as the codestream has them, whatever the file's own header says.

    Args:
        stripped: As `strip_jpeg_2000` returns it.

    Raises:
        DecodeError: It is cut short, or has far more components, tiles or layers than a photo.
    """
    at = 0
    if not stripped.startswith(_CODESTREAM):
        at = next((start for kind, start, _ in _boxes(stripped, 0, len(stripped)) if kind == b"jp2c"), len(stripped))
    if len(stripped) < at + 2 + _SIZ_BYTES or not stripped.startswith(_CODESTREAM, at):
        raise DecodeError("truncated", "The image is broken or cut short: it has no whole codestream.")
    right, bottom, left, top, tile_width, tile_height, tiles_left, tiles_top, components = struct.unpack_from(
        ">8IH", stripped, at + 8
    )
    if components > _MAX_COMPONENTS:
        raise too_many(_MAX_COMPONENTS, "components")
    across = -(-max(0, right - tiles_left) // max(1, tile_width))
    down = -(-max(0, bottom - tiles_top) // max(1, tile_height))
    if across * down > _MAX_TILES:
        raise too_many(_MAX_TILES, "tiles")
    _check_tiles(stripped, at + 2, across * down)
    return max(0, right - left), max(0, bottom - top)


def _check_tiles(data: bytes, at: int, tiles: int) -> None:
    """Walk through the main header and the tile-parts: each must be there, with at least one of each tile."""
    found: set[int] = set()
    for _ in range(_MAX_TILE_PARTS):
        if at + 12 > len(data):
            break
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == _EOC:
            break
        if marker == _COD and struct.unpack_from(">H", data, at + 6)[0] > _MAX_LAYERS:
            raise too_many(_MAX_LAYERS, "layers")
        if marker != _SOT:
            at += 2 + length
            continue
        tile, size = struct.unpack_from(">HI", data, at + 4)
        end = at + size if size else len(data)  # the last one may go on to the end
        if end > len(data):
            break
        found.add(tile)
        at = max(end, at + 12)
    else:
        raise too_many(_MAX_TILE_PARTS, "tile-parts")
    if len(found) < tiles:
        raise DecodeError("truncated", f"The image is cut short: it has {len(found)} of its {tiles} tiles.")
