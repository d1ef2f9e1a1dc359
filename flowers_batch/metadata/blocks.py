"""XMP packets and IPTC blocks inside image files.

They are looked for in JPEG, PNG, WebP, TIFF and RAW files made of it, and in formats made of boxes: HEIC, AVIF, CR3,
JPEG 2000, JPEG XL.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal, NamedTuple

from PIL import Image

from flowers_batch.decoding import formats  # noqa: F401  # registers the HEIF plugin
from flowers_batch.decoding.errors import DecodeError, explain_errors, too_many
from flowers_batch.decoding.heif import all_boxes
from flowers_batch.decoding.jpeg import application_segments, has_whole_header
from flowers_batch.decoding.metadata import png_texts, raw_profile
from flowers_batch.metadata.iptc import IPTC_RESOURCE, photoshop_resources

XMP, IPTC = "XMP", "IPTC"
_APP1, _APP13 = 0xE1, 0xED
# XMP specification part 3, 1.1.3: the packet, and what did not fit into its segment.
_JPEG_XMP, _JPEG_EXTENSION = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_JPEG_PHOTOSHOP = b"Photoshop 3.0\0"
_GUID_BYTES = 32
_NAMED_GUID = re.compile(rb"HasExtendedXMP(?:\s*=\s*[\"']|>)\s*([0-9A-Fa-f]{32})")
_PNG_XMP, _PNG_OLD_XMP = b"XML:com.adobe.xmp", b"Raw profile type xmp"
_PNG_IPTC = (b"Raw profile type iptc", b"Raw profile type 8bim")
_MAX_CHUNKS, _MAX_BOXES, _MAX_ENTRIES = 200_000, 100_000, 10_000  # of a WebP, of boxes, of a TIFF's directory
# Second halves of TIFF headers: TIFF, BigTIFF, RW2, and two of ORF.
_TIFFS, _BIG_TIFF = {42, 43, 0x55, 0x4F52, 0x5352}, 43
_TIFF_XMP, _TIFF_IPTC, _TIFF_PHOTOSHOP = 700, 33723, 34377
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8}  # TIFF 6.0, of whole numbers and text
# The `uuid` box of XMP in ISO base media files and in JPEG 2000 (XMP specification part 3, 1.3.9).
_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_CR3, _JPEG_2000, _JPEG_XL = b"ftypcrx ", b"jP  \r\n\x87\n", b"JXL \r\n\x87\n"  # behind the first box's size


class Block(NamedTuple):
    """A piece of metadata.

    Attributes:
        kind: `XMP` or `IPTC`.
        content: Its bytes.
    """

    kind: str
    content: bytes


def metadata_blocks(data: bytes) -> Iterator[Block]:
    """Yield the XMP packets and IPTC blocks of an image file's first picture; none of other files.

    Raises:
        DecodeError: The file is broken, or has far more parts than a photo.
    """
    if data.startswith(b"\xff\xd8\xff"):
        yield from _of_jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        yield from _of_png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        yield from _of_webp(data)
    elif data.startswith((_CR3, _JPEG_2000, _JPEG_XL), 4):
        yield from _of_boxes(data)
    elif data[4:8] == b"ftyp":
        yield from _of_heif(data)
    elif order := _tiff_order(data):
        yield from _of_tiff(data, order)


def has_all_blocks(head: bytes) -> bool:
    """Return whether the beginning of a file has all of its metadata.

    These are a JPEG's header, or what the first directory of a TIFF or a RAW file made of it refers to.

    Raises:
        DecodeError: It has far more parts than a photo.
    """
    if order := _tiff_order(head):
        with suppress(DecodeError):  # something lies beyond
            return all(True for _ in _of_tiff(head, order))
        return False
    return has_whole_header(head)


def _of_jpeg(data: bytes) -> Iterator[Block]:
    packets, photoshop = list[bytes](), list[bytes]()
    extensions = defaultdict[bytes, list[bytes]](list)  # by GUID: lengths, offsets, contents
    for marker, content in application_segments(data):
        if marker == _APP1 and content.startswith(_JPEG_XMP):
            packets.append(content[len(_JPEG_XMP) :])
        elif marker == _APP1 and content.startswith(_JPEG_EXTENSION):
            rest = content[len(_JPEG_EXTENSION) :]
            extensions[rest[:_GUID_BYTES]].append(rest[_GUID_BYTES:])
        elif marker == _APP13 and content.startswith(_JPEG_PHOTOSHOP):
            photoshop.append(content[len(_JPEG_PHOTOSHOP) :])
    for packet in packets:
        yield Block(XMP, packet)
    yield from _of_photoshop(b"".join(photoshop))
    named = {guid for packet in packets for guid in _NAMED_GUID.findall(packet)}
    for guid in extensions.keys() & named:  # others are left from before the file was edited
        yield Block(XMP, _joined(extensions[guid]))


def _joined(parts: list[bytes]) -> bytes:
    """Return an extended packet from its parts, each of which begins with the length of all and its own offset."""
    length = int.from_bytes(parts[0][:4], "big")
    whole = b"".join(part[8:] for part in sorted(parts, key=lambda part: part[4:8]))
    if len(whole) != length:
        raise DecodeError("truncated", f"Its extended XMP has {len(whole)} bytes instead of {length}.")
    return whole


def _of_photoshop(resources: bytes) -> Iterator[Block]:
    yield from (Block(IPTC, content) for number, content in photoshop_resources(resources) if number == IPTC_RESOURCE)


def _of_png(data: bytes) -> Iterator[Block]:
    texts = png_texts(data, (_PNG_XMP, _PNG_OLD_XMP, *_PNG_IPTC))
    for keyword, text in texts.items():
        content = text if keyword == _PNG_XMP else raw_profile(text)
        if not content:
            raise DecodeError("truncated", f"Its text {keyword.decode()} is empty or broken.")
        if keyword in _PNG_IPTC:
            yield from _of_photoshop(content)
        else:
            yield Block(XMP, content)


def _of_webp(data: bytes) -> Iterator[Block]:
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            return
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"XMP ":
            yield Block(XMP, data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    raise too_many(_MAX_CHUNKS, "chunks")


def _of_boxes(data: bytes) -> Iterator[Block]:
    for place, (kind, start, end) in enumerate(all_boxes(data, 0, len(data))):
        if place == _MAX_BOXES:
            raise too_many(_MAX_BOXES, "boxes")
        if kind == b"uuid" and data.startswith(_XMP_UUID, start):
            yield Block(XMP, data[start + len(_XMP_UUID) : end])
        elif kind == b"xml " and data.startswith(_JPEG_XL, 4):
            yield Block(XMP, data[start:end])
        elif kind == b"brob" and data.startswith(b"xml ", start):
            raise DecodeError("unsupported", "Its XMP is compressed with Brotli, which is not read.")


def _of_heif(data: bytes) -> Iterator[Block]:
    """Yield the packet of a HEIC or AVIF as Pillow's plugins find it."""
    for name in ("HEIF", "AVIF"):
        factory, accept = Image.OPEN[name]
        if accept and accept(data[:16]):
            with explain_errors():
                found = factory(io.BytesIO(data), "").info.get("xmp")
            if found:
                yield Block(XMP, found)
            return


def _tiff_order(data: bytes) -> Literal["little", "big"] | None:
    orders: dict[bytes, Literal["little", "big"]] = {b"II": "little", b"MM": "big"}
    order = orders.get(data[:2])
    return order if order and int.from_bytes(data[2:4], order) in _TIFFS else None


def _of_tiff(data: bytes, order: Literal["little", "big"]) -> Iterator[Block]:
    """Yield what the first directory refers to."""
    is_big = int.from_bytes(data[2:4], order) == _BIG_TIFF
    width, start, digits = (8, 8, 8) if is_big else (4, 4, 2)

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    directory = number(start, width)
    entries = number(directory, digits)
    if entries > _MAX_ENTRIES:
        raise too_many(_MAX_ENTRIES, "tags")
    first, size = directory + digits, 4 + 2 * width
    if first + entries * size > len(data):
        raise DecodeError("truncated", "Its first directory lies beyond the file's end.")
    wanted = {_TIFF_XMP, _TIFF_IPTC, _TIFF_PHOTOSHOP}
    for at in range(first, first + entries * size, size):
        tag = number(at, 2)
        if tag not in wanted:
            continue
        wanted.remove(tag)
        length, value_at = _TYPE_BYTES.get(number(at + 2, 2), 1) * number(at + 4, width), at + 4 + width
        place = value_at if length <= width else number(value_at, width)
        content = data[place : place + length]
        if len(content) < length:
            raise DecodeError("truncated", f"Its tag {tag} lies beyond the file's end.")
        if tag == _TIFF_PHOTOSHOP:
            yield from _of_photoshop(content)
        else:
            yield Block(XMP if tag == _TIFF_XMP else IPTC, content)
