"""HEIF and AVIF files without the metadata that libheif and libavif would refuse them for (ISO 14496-12, 23008-12)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

_MAX_DEPTH = 8  # of images made of images made of images; photos have two
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


def referenced_pixels(data: bytes) -> int:
    """Return the most pixels that libheif decodes for one image, which may be made of others, each used repeatedly."""
    return max((_pixels_by_meta(data, at + 4, end) for at, end in _boxes(data, b"meta", 0, len(data))), default=0)


def _pixels_by_meta(data: bytes, at: int, end: int) -> int:
    areas, parts = _areas(data, at, end), _parts(data, at, end)
    known: dict[int, int] = {}

    def pixels(item: int, depth: int) -> int:
        if item not in known:
            known[item] = areas.get(item, 0)  # a loop ends here
            if depth:
                known[item] += sum(
                    count * pixels(part, depth - 1) for part, count in parts.get(item, Counter()).items()
                )
        return known[item]

    return max((pixels(item, _MAX_DEPTH) for item in parts), default=0)


def _areas(data: bytes, at: int, end: int) -> dict[int, int]:
    """Return the pixels of each item, which libheif does not let it exceed (`ispe`, ISO 23008-12, 6.5.3)."""
    areas: dict[int, int] = {}
    for place, stop in _boxes(data, b"iprp", at, end):
        sizes = [0]  # properties are numbered from 1
        for store, store_end in _boxes(data, b"ipco", place, stop):
            for kind, start, _ in all_boxes(data, store, store_end):
                sizes.append(_number(data, start + 4, 4) * _number(data, start + 8, 4) if kind == b"ispe" else 0)
        for links, links_end in _boxes(data, b"ipma", place, stop):
            width = 4 if _number(data, links, 1) else 2
            step = 1 + (_number(data, links + 3, 1) & 1)
            here = links + 8
            while here + width < links_end:
                item, first = _number(data, here, width), here + width + 1
                here = first + step * _number(data, first - 1, 1)
                for link in range(first, min(here, links_end), step):
                    number = _number(data, link, step) & (0x7F if step == 1 else 0x7FFF)
                    areas[item] = max(areas.get(item, 0), sizes[number] if number < len(sizes) else 0)
    return areas


def _parts(data: bytes, at: int, end: int) -> dict[int, Counter[int]]:
    """Return which items each item is made of, and how often (`dimg`, ISO 23008-12, 6.6)."""
    parts: dict[int, Counter[int]] = {}
    for links, links_end in _boxes(data, b"iref", at, end):
        width = 4 if _number(data, links, 1) else 2
        for link, link_end in _boxes(data, b"dimg", links + 4, links_end):
            first = link + width + 2
            stop = min(first + width * _number(data, first - 2, 2), link_end)
            used = parts.setdefault(_number(data, link, width), Counter())
            used.update(_number(data, place, width) for place in range(first, stop, width))
    return parts


def _boxes(data: bytes, kind: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the content of each box of a kind, among those between two places."""
    return ((start, stop) for found, start, stop in all_boxes(data, at, end) if found == kind)


def all_boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each box between two places."""
    while at + 8 <= end:
        size, head = _number(data, at, 4), 8
        if size == 1:
            size, head = _number(data, at + 8, 8), 16
        box_end = end if size == 0 else min(at + size, end)
        if box_end < at + head:
            return
        yield data[at + 4 : at + 8], at + head, box_end
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
