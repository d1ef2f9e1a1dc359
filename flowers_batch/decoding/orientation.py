"""The orientation of a photo, as its metadata says it: what cannot be read says nothing."""

from __future__ import annotations

import re
from typing import Literal

_ORIENTATION = 0x0112  # Exif 2.32, also in TIFF 6.0
_NUMBERS = {3: 2, 4: 4}  # TIFF 6.0: bytes of SHORT and LONG
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation in EXIF data, or None if there is none.

    Args:
        exif: A TIFF directory and what it refers to, with or without `Exif` in front; anything else has no orientation.
    """
    for _ in range(2):  # some programs write it twice
        exif = exif.removeprefix(b"Exif\0\0")
    order = byte_order(exif)
    if order is None:
        return None
    directory = int.from_bytes(exif[4:8], order)
    entries = int.from_bytes(exif[directory : directory + 2], order)
    first = directory + 2
    for at in range(first, min(first + 12 * entries, len(exif) - 11), 12):
        if (number := orientation_entry(exif[at : at + 12], order)) is not None:
            return number
    return None


def byte_order(tiff: bytes) -> Literal["little", "big"] | None:
    """Return the byte order that a TIFF header states, or None if it is no such header."""
    if 42 not in tiff[2:4] and 43 not in tiff[2:4]:
        return None
    return {b"II": "little", b"MM": "big"}.get(tiff[:2])  # type: ignore[return-value]


def orientation_entry(entry: bytes, order: Literal["little", "big"], width: int = 4) -> int | None:
    """Return the orientation in an entry of a TIFF directory, or None if the entry is another one.

    Args:
        entry: Tag, type, count and value.
        order: The byte order.
        width: Bytes of count and value: 4, or 8 in a BigTIFF.
    """
    tag, kind, count = (int.from_bytes(entry[a:b], order) for a, b in ((0, 2), (2, 4), (4, 4 + width)))
    if tag != _ORIENTATION or kind not in _NUMBERS or count != 1:
        return None
    return int.from_bytes(entry[4 + width : 4 + width + _NUMBERS[kind]], order)


def xmp_orientation(xmp: bytes) -> int | None:
    """Return the orientation in an XMP packet, or None if there is none."""
    found = _XMP_ORIENTATION.search(xmp)
    return int(found[1]) if found else None


def first_orientation(exif: bytes, xmp: bytes) -> int:
    """Return the orientation in EXIF data, else in an XMP packet, else 1 (upright)."""
    for number in (exif_orientation(exif), xmp_orientation(xmp)):
        if number is not None:
            return number
    return 1
