"""Faults in metadata cost no photo, in any format; the orientation counts wherever it can be read."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib

import numpy as np
import pytest
from helpers import encoded
from image_files import FORMATS, blocks, little_memory, off, png_chunk
from PIL import Image, ImageCms, PngImagePlugin

from flowers_batch.decoding.decode_photo import decode_photo
from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.metadata import strip_metadata

WITH_EXIF = ["JPEG", "MPO", "PNG", "WEBP", "HEIF", "AVIF"]
BROKEN = {
    "no TIFF": b"\0\x08\0\x02\x01\x12\0\x03",
    "XMP": b"http://ns.adobe.com/xap/1.0/\0",
    "other byte order": b"MM*\0\x08\0\0\0",
    "directory elsewhere": b"MM\0*\xff\xff\xff\xff",
    "many entries": b"MM\0*\0\0\0\x08\xff\xff",
    "directory that is its own successor": b"MM\0*\0\0\0\x08\0\0\0\0\0\x08",
    "huge count": b"MM\0*\0\0\0\x08\0\x01\x01\x0e\0\x02\xff\xff\xff\xff\0\0\0\0",
}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int = 6, description: str = "x" * 60) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010E] = description
    return tags


def with_exif(kind: str, content: bytes) -> bytes:
    """A photo whose EXIF data is that, and what is left of another's."""
    data = encoded(blocks(), kind, exif=exif(1).tobytes(), **FORMATS[kind][0])
    at = data.index(b"MM\0*")
    data = data[:at] + content + data[at + len(content) :]
    return with_checksums(data) if kind == "PNG" else data


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of their content."""
    result, at = data[:8], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        result += png_chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + size])
        at += 12 + size
    return result


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_with(*segments: bytes, **options) -> bytes:
    """A JPEG with additional segments behind JFIF's."""
    data = encoded(blocks(), "JPEG", quality=100, subsampling=0, **options)
    assert data[2:4] == b"\xff\xe0"
    return data[:20] + b"".join(segments) + data[20:]


def turned(photo: np.ndarray) -> np.ndarray:
    """A photo whose orientation is 6, upright."""
    return np.rot90(photo, -1)


@pytest.mark.parametrize("kind", WITH_EXIF)
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_photo_with_broken_exif_is_decoded_and_not_turned(kind, content):
    plain = encoded(blocks(), kind, **FORMATS[kind][0])
    assert off(decode_photo(with_exif(kind, content)), decode_photo(plain)) == 0


@pytest.mark.parametrize("length", range(9))
def test_exif_that_is_cut_short_is_ignored(length):
    for content in (b"Exif\0\0" + b"II*\0\x08\0\0\0"[:length], b"Exif\0\0"[:length]):
        assert off(decode_photo(jpeg_with(segment(0xE1, content))), blocks()) <= 2


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP", b"tEXt"])
def test_text_and_profile_of_a_png_may_have_any_size(kind):
    whole = encoded(blocks())
    name = b"name\0\1\0\0\0" if kind == b"iTXt" else b"name\0\0"
    content = random.Random(0).randbytes(2 << 20) + b"\0" * (98 << 20)
    chunk = png_chunk(kind, name + content if kind == b"tEXt" else name + zlib.compress(content))
    for data in (whole[:33] + chunk + whole[33:], whole[:-12] + chunk + whole[-12:]):
        with little_memory():
            assert off(decode_photo(data), blocks()) == 0


@pytest.mark.parametrize("name", [b"XML:com.adobe.xmp", b"Raw profile type exif"])
def test_bomb_in_a_text_that_may_hold_the_orientation_takes_no_memory(name):
    whole = encoded(blocks())
    bomb = zlib.compress(bytes(200 << 20))
    for chunk in (png_chunk(b"zTXt", name + b"\0\0" + bomb), png_chunk(b"iTXt", name + b"\0\1\0\0\0" + bomb)):
        with little_memory():
            assert off(decode_photo(whole[:33] + chunk + whole[33:]), blocks()) == 0


@pytest.mark.parametrize(
    "chunk", [(b"eXIf", b"Exif\0\0" * 1_000_000), (b"tEXt", b"Raw profile type exif\0" + b"\n" * 10_000_000)]
)
def test_repetitions_in_metadata_take_neither_time_nor_memory(chunk):
    whole = encoded(blocks())
    data = whole[:33] + png_chunk(*chunk) + whole[33:]
    begun = time.perf_counter()
    with little_memory():
        assert off(decode_photo(data), blocks()) == 0
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"no hexadecimal number")),
        (b"zTXt", b"name\0\7unknown compression"),
        (b"zTXt", b"Raw profile type exif\0\0" + b"no zlib"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1"),
        (b"tEXt", b"transparency\0not a colour"),
        (b"iCCP", b"name\0\7"),
        (b"iCCP", b""),
        (b"gAMA", b""),
        (b"pHYs", b"\0"),
        (b"cHRM", b"\0"),
        (b"sRGB", b""),
        (b"eXIf", b"MM"),
        (b"acTL", b""),
        (b"fcTL", bytes(26)),
    ],
)
def test_broken_chunks_of_a_png_are_ignored(kind, content):
    whole = encoded(blocks())
    chunk = png_chunk(kind, content)
    for data in (chunk, chunk[:-4] + b"\0\0\0\0"):  # its checksum is wrong, too
        assert off(decode_photo(whole[:33] + data + whole[33:]), blocks()) == 0


@pytest.mark.parametrize(
    "content",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xE0, b"JFXX\0"),
        segment(0xEE, b"Adobe"),
        segment(0xEE, b"Adobe\0d\0\0\0"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x04"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\1\2broken"),
        segment(0xE2, b"MPF\0"),
        segment(0xE2, b"MPF\0II*\0\x08\0\0\0\x01\0\x01\xb0\x04\0\x01\0\0\0\xff\xff\xff\xff\0\0\0\0"),
        segment(0xE1, b""),
        segment(0xFE, b""),
        b"\xff\xe1\0\0",
        b"\xff\xff\xff",
    ],
)
def test_broken_segments_of_a_jpeg_are_ignored(content):
    assert off(decode_photo(jpeg_with(content)), decode_photo(jpeg_with())) == 0


def test_thousands_of_segments_take_neither_time_nor_memory():
    data = jpeg_with(*[segment(0xE1, b"Exif\0\0" + bytes(60_000))] * 1000, *[segment(0xE2, b"ICC_PROFILE\0")] * 20_000)
    begun = time.perf_counter()
    with little_memory():
        assert off(decode_photo(data), blocks()) <= 2
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize("size", [0, 4, 20, 10_000, 2**32 - 2])
@pytest.mark.parametrize("options", [{}, {"exif": exif(1).tobytes()}])
def test_size_in_the_header_of_a_webp_is_ignored(size, options):
    data = encoded(blocks(), "WEBP", lossless=True, **options)
    assert off(decode_photo(data[:4] + struct.pack("<I", size) + data[8:]), blocks()) == 0


def test_metadata_at_the_end_of_a_webp_may_be_cut_short():
    data = encoded(blocks(), "WEBP", lossless=True, exif=exif(1).tobytes())
    assert off(decode_photo(data[:-20]), blocks()) == 0


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("tag", [0x010E, 0x8773, 0x83BB, 0x02BC])  # description, profile, IPTC, XMP
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_broken_tags_of_a_tiff_are_ignored(byteorder, tag, compression):
    tags = exif()
    tags.endian = byteorder
    tags[tag] = "content" * 9 if tag == 0x010E else b"content" * 9
    data = bytearray(encoded(blocks(), "TIFF", tiffinfo=tags, compression=compression))
    order = "little" if data[:2] == b"II" else "big"
    at = data.index(tag.to_bytes(2, order), int.from_bytes(data[4:8], order))
    data[at + 8 : at + 12] = b"\x7f\xff\xff\x7f"  # beyond the end
    assert off(decode_photo(bytes(data)), turned(blocks())) == 0


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_brands_of_heif_and_avif_are_looked_through(kind):
    data = encoded(blocks(), kind, **FORMATS[kind][0])
    own, expected = data[8:12], decode_photo(data)
    for major in (b"mif1", b"msf1", b"miaf", b"heif", b"MA1B", b"none"):
        # As the last of many, behind where Pillow looks.
        box = b"ftyp" + major + bytes(4) + b"mif1miaf" + b"abcd" * 5 + own
        changed = struct.pack(">I", len(box) + 4) + box + data[int.from_bytes(data[:4], "big") :]
        assert off(decode_photo(moved(changed, len(changed) - len(data))), expected) == 0


def moved(data: bytes, by: int) -> bytes:
    """A HEIF whose items have moved: its `iloc` box has offsets of 4 bytes (ISO 14496-12, 8.11.3)."""
    at = data.index(b"mdat")
    start, meta = at + 4 - by, data.index(b"iloc")
    result = bytearray(data)
    for place in range(meta, at - 4):
        if int.from_bytes(data[place : place + 4], "big") == start:
            result[place : place + 4] = struct.pack(">I", start + by)
    return bytes(result)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize("place", [2**31, 2**32 - 1, None])
def test_metadata_of_a_heif_may_lie_beyond_its_end(kind, place):
    data, spans = rich(kind)
    changed = bytearray(data)
    meta_end = data.index(b"mdat")
    for begin, _ in spans[:2]:  # of EXIF, which is preceded by some bytes, and of XMP
        starts = (begin - before for before in (10, 4, 0))
        at = next(at for at in (data.find(struct.pack(">I", start), 0, meta_end) for start in starts) if at >= 0)
        changed[at : at + 4] = struct.pack(">I", place or len(data) - 1)
    plain = decode_photo(encoded(blocks(), kind, **FORMATS[kind][0]))
    assert any(np.array_equal(decode_photo(bytes(changed)), photo) for photo in (plain, turned(plain)))


def test_every_opener_that_accepts_is_tried():
    data = encoded(blocks(), "HEIF", **FORMATS["HEIF"][0])
    assert off(decode_photo(data[:8] + b"avif" + data[12:]), decode_photo(data)) == 0


def test_film_is_not_an_image():
    with pytest.raises(DecodeError) as error:
        decode_photo(b"\0\0\0\x18ftypisom\0\0\2\0isommp42" + bytes(500))
    assert error.value.reason == "not_an_image"


def as_raw_profile(content: bytes) -> str:
    return f"\nexif\n{len(content):8}\n" + "\n".join(
        content.hex()[at : at + 72] for at in range(0, len(content) * 2, 72)
    )


def test_orientation_is_read_wherever_it_stands():
    raw = exif().tobytes()
    text = [PngImagePlugin.PngInfo() for _ in range(3)]
    text[0].add_text("Raw profile type exif", as_raw_profile(raw), zip=True)
    text[1].add_itxt("XML:com.adobe.xmp", XMP.decode())
    text[2].add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    whole = encoded(blocks())
    files = [
        jpeg_with(segment(0xE1, raw)),
        jpeg_with(segment(0xE1, b"something else"), segment(0xE1, raw)),
        jpeg_with(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)),
        *(encoded(blocks(), pnginfo=info) for info in text),
        whole[:-12] + png_chunk(b"eXIf", raw[6:]) + whole[-12:],
        encoded(blocks(), "WEBP", lossless=True, exif=raw[6:]),
        encoded(blocks(), "WEBP", lossless=True, xmp=XMP),
        encoded(blocks(), "AVIF", xmp=XMP, **FORMATS["AVIF"][0]),
        encoded(blocks(), "TIFF", tiffinfo=exif()),
        encoded(blocks(), "TIFF", tiffinfo=exif(), big_tiff=True),
    ]
    for data in files:
        assert off(decode_photo(data), turned(blocks())) <= 4


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", ["H", "I"])
def test_orientation_may_be_a_short_or_a_long(byteorder, kind):
    number = {"H": 3, "I": 4}[kind]
    entry = struct.pack(f"{byteorder}HHI", 0x0112, number, 1) + struct.pack(byteorder + kind, 6).ljust(4, b"\0")
    head = (b"II" if byteorder == "<" else b"MM") + struct.pack(f"{byteorder}HI", 42, 8)
    content = head + struct.pack(f"{byteorder}H", 1) + entry + bytes(4)
    assert off(decode_photo(jpeg_with(segment(0xE1, b"Exif\0\0" + content))), turned(blocks())) <= 2


def test_orientation_beside_a_broken_entry_is_read():
    content = exif().tobytes()
    at = content.index(b"\x01\x0e")
    content = content[: at + 8] + b"\xff\xff\xff\x00" + content[at + 12 :]
    assert off(decode_photo(jpeg_with(segment(0xE1, content))), turned(blocks())) <= 2


def test_orientation_of_a_heif_is_the_containers():
    # Apple's and others' HEIF repeats it in EXIF and XMP, where it is to be ignored.
    data = encoded(blocks(), "HEIF", exif=exif(6).tobytes(), **FORMATS["HEIF"][0])
    assert off(decode_photo(data), turned(blocks())) == 0


def rich(kind: str) -> tuple[bytes, list[tuple[int, int]]]:
    """A file with metadata of all kinds, and where that begins and ends."""
    options = dict(FORMATS[kind][0])
    if kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif kind != "MPO":
        options["xmp"] = XMP
    data = encoded(blocks(), kind, exif=exif().tobytes(), icc_profile=PROFILE, **options)
    found = data.index(b"MM\0*")  # encoders change what it says of the orientation
    spans = [(found, found + 80)]
    if kind != "MPO":
        spans.append((data.index(b"<x:xmpmeta"), data.index(b"</x:xmpmeta>")))
    if PROFILE in data:
        spans.append((data.index(PROFILE), data.index(PROFILE) + len(PROFILE)))
    if kind == "PNG":
        at = data.index(b"iCCP")
        spans.append((at + 4, at + 4 + int.from_bytes(data[at - 4 : at], "big")))
    return data, spans


@pytest.mark.parametrize("kind", WITH_EXIF)
def test_any_damage_to_metadata_leaves_the_pixels(kind):
    data, spans = rich(kind)
    once = decode_photo(encoded(blocks(), kind, **FORMATS[kind][0]))
    upright = [np.rot90(photo, turns) for photo in (once, once[::-1]) for turns in range(4)]
    draw = random.Random(5)
    for _ in range(1000):
        damaged = bytearray(data)
        for _ in range(draw.choice((1, 2, 10, 60))):
            begin, end = draw.choice(spans)
            damaged[draw.randrange(begin, min(end, begin + draw.choice((20, 1 << 20))))] = draw.choice(
                (0, 255, draw.randrange(256))
            )
        result = decode_photo(bytes(damaged))
        assert any(np.array_equal(result, photo) for photo in upright)


def test_stripped_file_has_the_pixels_of_the_whole_one():
    for kind in WITH_EXIF[2:]:
        data, _ = rich(kind)
        stripped, _ = strip_metadata(data)
        with Image.open(io.BytesIO(stripped)) as one, Image.open(io.BytesIO(data)) as other:
            assert np.array_equal(np.asarray(one), np.asarray(other))
            assert kind in ("HEIF", "AVIF") or not one.info.keys() & {"exif", "xmp", "icc_profile"}
