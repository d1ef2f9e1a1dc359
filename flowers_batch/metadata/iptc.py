"""Keywords in IPTC blocks (IIM 4.2), and where these are in the image resources of Photoshop."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

IPTC_RESOURCE = 0x0404
_SIGNATURES = (b"8BIM", b"PHUT", b"DCSR", b"AgHg", b"MeSa")  # of image resources; all but the first are rare
_MARKER = 0x1C  # begins a dataset
_CHARACTER_SET, _KEYWORDS = (1, 90), (2, 25)
_LONG = 0x8000  # in a size: the other bits say how many bytes the size has
_MAX_BYTES = 1 << 20  # a keyword has at most 64 bytes
# Escape sequences of ISO 2022 that choose a character set (IIM 4.2, 1:90).
_UTF8 = b"\x1b%"
_CHARACTER_SETS = {b"A": "latin-1", b"B": "iso8859-2", b"L": "iso8859-5", b"F": "iso8859-7", b"M": "iso8859-9"}
_USUAL = "cp1252"  # of programs that name no character set, and do not write UTF-8


class MalformedIptcError(Exception):
    """An IPTC block is broken; the text is one sentence without a name."""


def photoshop_resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each image resource (Adobe Photoshop File Formats Specification)."""
    at = 0
    while data[at : at + 4] in _SIGNATURES:
        number = int.from_bytes(data[at + 4 : at + 6], "big")
        name_bytes = 1 + int.from_bytes(data[at + 6 : at + 7], "big")
        at += 6 + name_bytes + name_bytes % 2
        size = int.from_bytes(data[at : at + 4], "big")
        yield number, data[at + 4 : at + 4 + size]
        at += 4 + size + size % 2


def read_iptc(block: bytes) -> tuple[str, ...]:
    """Return the keywords of an IPTC block, each once, in NFC.

    Raises:
        MalformedIptcError: It is broken or cut short.
    """
    if len(block) > _MAX_BYTES:
        raise MalformedIptcError(f"it has {len(block)} bytes, and {_MAX_BYTES} are allowed")
    encoding, values = None, list[bytes]()
    for dataset, content in _datasets(block):
        if dataset == _CHARACTER_SET:
            encoding = _encoding(content)
        elif dataset == _KEYWORDS:
            values.append(content)
    texts = (unicodedata.normalize("NFC", _text(value.replace(b"\0", b""), encoding)).strip() for value in values)
    return tuple(dict.fromkeys(text for text in texts if text))


def _datasets(block: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield the numbers of record and dataset, and the content, of each dataset."""
    at = 0
    while at < len(block):
        if block[at] != _MARKER:
            if block[at:].strip(b"\0"):  # zeros fill it up
                raise MalformedIptcError(f"no dataset begins at byte {at}")
            return
        head, size = block[at : at + 5], int.from_bytes(block[at + 3 : at + 5], "big")
        at += 5
        if size & _LONG:
            width = size - _LONG
            size = int.from_bytes(block[at : at + width], "big")
            at += width
        if len(head) < 5 or at + size > len(block):
            raise MalformedIptcError("it is cut short")
        yield (head[1], head[2]), block[at : at + size]
        at += size


def _encoding(sequence: bytes) -> str | None:
    """Return the encoding that an escape sequence chooses; None if it is an unknown one."""
    return "utf-8" if sequence.startswith(_UTF8) else _CHARACTER_SETS.get(sequence[-1:])


def _text(value: bytes, encoding: str | None) -> str:
    if encoding in (None, "utf-8"):
        try:
            return value.decode()
        except UnicodeDecodeError:
            encoding = _USUAL
    return value.decode(encoding or _USUAL, "replace")
