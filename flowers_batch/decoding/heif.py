"""HEIF and AVIF files without the metadata that libheif and libavif would refuse them for (ISO 14496-12, 23008-12)."""

from __future__ import annotations

from collections.abc import Iterator

_METADATA = (b"Exif", b"mime")  # types of items; XMP is a MIME type


def strip_heif(data: bytes) -> bytes:
    """Return a file in which EXIF is renamed, and metadata that lies beyond the file's end moved to its beginning.

    Other items are found by their offsets, so that nothing can be cut out. The orientation in EXIF counts for nothing
    beside the container's own.
    """
    changed = bytearray(data)
    metadata = set()
    for at, end in _boxes(data, b"meta", 0, len(data)):
        for infos_at, infos_end in _boxes(data, b"iinf", at + 4, end):
            wide = data[infos_at : infos_at + 1] != b"\0"
            for info_at, _ in _boxes(data, b"infe", infos_at + (8 if wide else 6), infos_end):
                width = 4 if data[info_at : info_at + 1] == b"\3" else 2
                kind_at = info_at + 6 + width
                kind = data[kind_at : kind_at + 4]
                if kind in _METADATA:
                    metadata.add(_number(data, info_at + 4, width))
                if kind == b"Exif":
                    changed[kind_at : kind_at + 4] = b"skip"
        for places_at, places_end in _boxes(data, b"iloc", at + 4, end):
            _move_lost_items(changed, places_at, places_end, metadata)
    return bytes(changed)


def _boxes(data: bytes, kind: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the content of each box of a kind, among those between two places."""
    while at + 8 <= end:
        size, head = _number(data, at, 4), 8
        if size == 1:
            size, head = _number(data, at + 8, 8), 16
        box_end = end if size == 0 else min(at + size, end)
        if box_end < at + head:
            return
        if data[at + 4 : at + 8] == kind:
            yield at + head, box_end
        at = box_end


def _move_lost_items(data: bytearray, at: int, end: int, items: set[int]) -> None:
    """Have items whose content lies beyond the file's end consist of the file's first byte, in an `iloc` box."""
    version = _number(data, at, 1)
    sizes = _number(data, at + 4, 2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version == 2 else 2
    count, at = _number(data, at + 6, wide), at + 6 + wide
    for _ in range(count):
        item, base_at = _number(data, at, wide), at + wide + (4 if version else 2)
        extents_at = base_at + base_size + 2
        extent_size = (index_size if version else 0) + offset_size + length_size
        following = extents_at + extent_size * _number(data, extents_at - 2, 2)
        if following > end:
            return
        for extent in range(extents_at, following, extent_size or 1):
            offset_at = extent + extent_size - offset_size - length_size
            length_at = offset_at + offset_size
            last = sum(
                _number(data, *part)
                for part in ((base_at, base_size), (offset_at, offset_size), (length_at, length_size))
            )
            if item in items and last > len(data):
                data[base_at : base_at + base_size] = bytes(base_size)
                data[offset_at:length_at] = bytes(offset_size)
                data[length_at : length_at + length_size] = (1).to_bytes(length_size, "big") if length_size else b""
        at = following


def _number(data: bytes | bytearray, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")
