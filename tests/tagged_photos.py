"""Photos with keywords in their metadata, for tests."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers import encoded
from image_files import png_chunk
from PIL import Image, TiffImagePlugin

from flowers_batch.metadata.tags import Tag, with_tag

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NAMESPACES = (
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/" '
    'xmlns:xmpNote="http://ns.adobe.com/xmp/note/"'
)
XMP_KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF")  # formats that Pillow writes with XMP


def xmp(*keywords: str, paths: tuple[str, ...] = (), ours: str = "", extra: str = "") -> bytes:
    """Return a packet: `paths` have `|` between their levels; `ours` is a label that this program adds."""
    content = _bag("dc:subject", keywords) + _bag("lr:hierarchicalSubject", paths) + extra
    packet = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
        f'<rdf:Description rdf:about="" {_NAMESPACES}>{content}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()
    return (with_tag(packet, Tag(ours, 0.9, "model")) or b"") if ours else packet


def _bag(name: str, values: tuple[str, ...] | list[str]) -> str:
    items = "".join(f"<rdf:li>{value}</rdf:li>" for value in values)
    return f"<{name}><rdf:Bag>{items}</rdf:Bag></{name}>" if values else ""


def dataset(record: int, number: int, content: bytes) -> bytes:
    """Return a dataset of IPTC."""
    return struct.pack(">BBBH", 0x1C, record, number, len(content)) + content


def iptc(*keywords: str, encoding: str = "utf-8", escape: bytes = b"\x1b%G") -> bytes:
    """Return an IPTC block."""
    return dataset(1, 90, escape) * bool(escape) + b"".join(dataset(2, 25, word.encode(encoding)) for word in keywords)


def resource(number: int, content: bytes, name: bytes = b"") -> bytes:
    """Return an image resource of Photoshop."""
    named = bytes([len(name)]) + name
    return b"".join(
        (b"8BIM", struct.pack(">H", number), named, bytes(len(named) % 2), struct.pack(">I", len(content)), content)
    ) + bytes(len(content) % 2)


@cache
def plain(kind: str = "JPEG") -> bytes:
    """Return a photo without metadata."""
    return encoded(np.full((24, 32, 3), (200, 60, 60), np.uint8), kind)


def photo(kind: str, packet: bytes) -> bytes:
    """Return a photo with an XMP packet, as Pillow writes it; of PNG compressed."""
    if kind == "PNG":
        text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet)
        return with_chunk(png_chunk(b"iTXt", text))
    if kind == "TIFF":
        return tiff({700: packet})
    return encoded(Image.new("RGB", (32, 24), "red"), kind, xmp=packet)


def with_chunk(chunk: bytes) -> bytes:
    """Return a PNG with another chunk, before its pixels."""
    data = plain("PNG")
    at = data.index(b"IDAT") - 4
    return data[:at] + chunk + data[at:]


def tiff(tags: dict[int, bytes]) -> bytes:
    """Return a TIFF with further tags."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, content in tags.items():
        info.tagtype[tag] = 7
        info[tag] = content
    return encoded(Image.new("RGB", (32, 24), "red"), "TIFF", tiffinfo=info)


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    """Return a JPEG with segments, each by its marker, behind its first one."""
    data = plain()
    at = 4 + int.from_bytes(data[4:6], "big")
    written = (struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in segments)
    return data[:at] + b"".join(written) + data[at:]


def jpeg_with_iptc(block: bytes) -> bytes:
    """Return a JPEG with an IPTC block among other image resources."""
    resources = resource(0x03ED, b"12345", b"size") + resource(0x0404, block) + resource(0x040F, b"abc")
    return jpeg((0xED, b"Photoshop 3.0\0" + resources))


def exiftool(*arguments: str | Path) -> str:
    """Run exiftool; skip the test where it is not installed."""
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed (Debian: libimage-exiftool-perl)")
    command = ["exiftool", "-q", "-overwrite_original", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
