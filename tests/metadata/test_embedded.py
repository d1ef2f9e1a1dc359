"""Keywords inside image files of each format, and what becomes of broken metadata."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
import pytest
from helpers import write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import png_chunk
from tagged_photos import (
    XMP_KINDS,
    dataset,
    exiftool,
    iptc,
    jpeg,
    jpeg_with_iptc,
    photo,
    plain,
    resource,
    tiff,
    with_chunk,
    xmp,
)

from flowers_batch.decoding.errors import DecodeError
from flowers_batch.metadata.embedded import embedded_keywords
from flowers_batch.metadata.file_keywords import FileKeywords, KeywordsOutput

WORDS = ("rose", "R\u00f6schen", "plant/flower/rose")
PACKET = xmp("rose", "R\u00f6schen", paths=("plant|flower|rose",))
ADOBE, EXTENSION = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("kind", XMP_KINDS)
def test_xmp_of_each_format_is_read(kind):
    assert embedded_keywords(photo(kind, PACKET)) == FileKeywords(WORDS)


@pytest.mark.parametrize("kind", [*XMP_KINDS, "BMP", "GIF"])
def test_photo_without_metadata_has_no_keywords(kind):
    assert embedded_keywords(plain(kind)) == FileKeywords()


@pytest.mark.parametrize(
    "data",
    [
        jpeg_with_iptc(iptc("rose", "R\u00f6schen")),
        tiff({33723: iptc("rose", "R\u00f6schen")}),
        tiff({34377: resource(0x0404, iptc("rose", "R\u00f6schen"))}),
        with_chunk(
            png_chunk(
                b"zTXt",
                b"Raw profile type iptc\0\0"
                + zlib.compress(b"\niptc\n  99\n" + resource(0x0404, iptc("rose", "R\u00f6schen")).hex().encode()),
            )
        ),
    ],
    ids=["jpeg", "tiff", "tiff-photoshop", "png"],
)
def test_iptc_of_each_format_is_read(data):
    assert embedded_keywords(data) == FileKeywords(("rose", "R\u00f6schen"))


def test_raw_files_made_of_tiff_are_read():
    data = tiff({700: PACKET})
    panasonic = data[:2] + b"\x55\0" + data[4:]
    assert embedded_keywords(panasonic).given == WORDS
    canon = box(b"ftyp", b"crx ") + box(b"moov", b"x") + box(b"uuid", XMP_UUID + PACKET) + box(b"mdat", b"x")
    assert embedded_keywords(canon).given == WORDS


def test_jpeg_2000_and_jpeg_xl_are_read():
    photo_ = plain("JPEG2000")
    assert embedded_keywords(photo_) == FileKeywords()
    assert embedded_keywords(photo_ + box(b"xml ", b"<gml/>") + box(b"uuid", XMP_UUID + PACKET)).given == WORDS
    start = box(b"JXL ", b"\r\n\x87\n")
    assert embedded_keywords(start + box(b"xml ", PACKET) + box(b"jxlc", b"x")).given == WORDS
    assert embedded_keywords(start + box(b"brob", b"xml x")).problems[0].startswith("Its XMP is compressed")


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def test_xmp_and_iptc_of_one_file_are_joined():
    data = jpeg((0xE1, ADOBE + xmp("rose")), (0xED, b"Photoshop 3.0\0" + resource(0x0404, iptc("garden", "rose"))))
    assert embedded_keywords(data).given == ("rose", "garden")


def extended(packet: bytes, size: int, *, named: bool = True) -> list[tuple[int, bytes]]:
    """Return the segments of an extended packet, the last one first, behind the main one."""
    guid = hashlib.md5(packet).hexdigest().upper().encode()
    note = f"<xmpNote:HasExtendedXMP>{guid.decode()}</xmpNote:HasExtendedXMP>" if named else ""
    parts = [
        (0xE1, EXTENSION + guid + struct.pack(">II", len(packet), start) + packet[start : start + size])
        for start in range(0, len(packet), size)
    ]
    return [(0xE1, ADOBE + xmp("main", extra=note)), *reversed(parts)]


def test_extended_xmp_of_several_segments_is_joined():
    packet = xmp(*(f"word {number}" for number in range(300)))
    found = embedded_keywords(jpeg(*extended(packet, 5000)))
    assert not found.problems and found.given[:2] == ("main", "word 0") and len(found.given) == 301


def test_extended_xmp_that_was_left_behind_is_ignored():
    assert embedded_keywords(jpeg(*extended(xmp("old"), 5000, named=False))) == FileKeywords(("main",))


def test_extended_xmp_with_a_lost_segment_is_a_problem():
    found = embedded_keywords(jpeg(*extended(xmp("old"), 100)[:-1]))
    assert found.problems[0].startswith("Its extended XMP has ") and found.given == ("main",)


def test_large_packet_without_keywords_costs_none():
    depth = xmp(extra=f"<GDepth>{'x' * (5 << 20)}</GDepth>")
    assert embedded_keywords(jpeg(*extended(depth, 60_000))) == FileKeywords(("main",))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (jpeg((0xE1, ADOBE + PACKET[:-9])), "Its XMP cannot be read: it is not well-formed XML"),
        (jpeg((0xE1, ADOBE + PACKET[:80])), "Its XMP cannot be read: it is not well-formed XML"),
        (jpeg((0xE1, ADOBE + b"<subject/>")), "Its XMP cannot be read: it is XML, but not XMP"),
        (jpeg_with_iptc(iptc("rose")[:-2]), "Its IPTC cannot be read: it is cut short"),
        (jpeg_with_iptc(b"rose"), "Its IPTC cannot be read: no dataset begins at byte 0"),
        (photo("WEBP", PACKET).replace(PACKET[-20:], b"x" * 20), "Its XMP cannot be read: it is not well-formed"),
        (with_chunk(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0x")), "Its text XML:com.adobe.xmp is empty or"),
        (photo("TIFF", PACKET)[:300], "Its tag 700 lies beyond the file's end"),
        (photo("HEIF", PACKET)[:60], "The image is broken or cut short"),
        (photo("JPEG", xmp("x" * 256, "rose")), "A keyword has more than 255 characters"),
    ],
    ids=lambda value: "file" if isinstance(value, bytes) else value[:40],
)
def test_broken_metadata_are_told(data, problem):
    found = embedded_keywords(data)
    assert found.problems[0].startswith(problem)
    assert "rose" not in found.given or "characters" in problem


def test_repeated_tag_of_a_tiff_is_read_once():
    """Each time would take the time of reading all of the file."""
    entries, packet = 10_000, b"x" * (5 << 20)
    directory = struct.pack("<H", entries) + struct.pack("<HHII", 700, 7, len(packet), 8) * entries
    data = struct.pack("<2sHI", b"II", 42, 8 + len(packet)) + packet + directory
    assert embedded_keywords(data).problems == (
        "Its XMP cannot be read: it has 5242880 bytes, and 4194304 are allowed.",
    )


def test_broken_block_does_not_cost_the_keywords_of_another():
    data = jpeg((0xE1, ADOBE + PACKET[:-9]), (0xED, b"Photoshop 3.0\0" + resource(0x0404, iptc("rose"))))
    found = embedded_keywords(data)
    assert found.given == ("rose",) and len(found.problems) == 1


def test_ours_are_told_apart():
    found = embedded_keywords(photo("JPEG", xmp("garden", ours="rose")))
    assert (found.given, found.ours) == (("garden",), ("rose",))


def test_keywords_that_exiftool_wrote_are_read(tmp_path):
    kinds = {"jpg": "JPEG", "tif": "TIFF", "png": "PNG", "webp": "WEBP", "heic": "HEIF", "jp2": "JPEG2000"}
    write(tmp_path, {f"photo.{suffix}": plain(kind) for suffix, kind in kinds.items()})
    words = ["-XMP-dc:Subject=rose", "-XMP-dc:Subject=R\u00f6schen", "-XMP-lr:HierarchicalSubject=plant|flower|rose"]
    exiftool(*words, *tmp_path.iterdir())
    exiftool("-IPTC:Keywords=in IPTC", tmp_path / "photo.jpg", tmp_path / "photo.tif", tmp_path / "photo.png")
    for suffix in kinds:
        found = embedded_keywords((tmp_path / f"photo.{suffix}").read_bytes())
        assert found == FileKeywords((*WORDS, "in IPTC") if suffix in ("jpg", "tif", "png") else WORDS), suffix


def test_character_set_of_exiftool_is_read(tmp_path):
    file = write(tmp_path, {"photo.jpg": plain()}) / "photo.jpg"
    exiftool("-charset", "iptc=Latin", "-IPTC:Keywords=R\u00f6schen", file)
    assert b"R\xf6schen" in file.read_bytes() and embedded_keywords(file.read_bytes()).given == ("R\u00f6schen",)
    exiftool("-IPTC:CodedCharacterSet=UTF8", "-IPTC:Keywords=\u6843", file)
    assert embedded_keywords(file.read_bytes()).given == ("\u6843",)


def test_slot_holds_what_was_found():
    output = KeywordsOutput()
    slot = np.zeros(output.shape, output.dtype)
    output.write(photo("JPEG", PACKET), slot, 1, None)
    assert output.read(slot) == FileKeywords(WORDS)
    with pytest.raises(DecodeError, match=r"Its keywords have .* bytes"):
        output.write(photo("TIFF", xmp(*(f"{number:0200d}" for number in range(500)))), slot, 1, None)


@given(st.binary(max_size=200), st.binary(max_size=4))
@settings(max_examples=60, **QUIET)
def test_slot_of_a_process_that_was_taken_over_is_a_problem(content, length):
    slot = np.zeros(KeywordsOutput().shape, np.uint8)
    written = length.ljust(4, b"\0") + content
    slot[: len(written)] = np.frombuffer(written, np.uint8)
    assert KeywordsOutput.read(slot).problems


BLOCKS = st.binary(max_size=300) | st.lists(
    st.builds(dataset, st.integers(0, 255), st.sampled_from([25, 90, 0]), st.binary(max_size=40))
).map(b"".join)


@given(BLOCKS, st.binary(max_size=100), st.integers(0, 400), st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "HEIF"]))
@settings(max_examples=60, **QUIET)
def test_any_bytes_give_keywords_or_a_problem(block, noise, at, kind):
    files = [
        block,
        b"<" + noise,
        jpeg_with_iptc(block),
        jpeg((0xE1, ADOBE + b"<subject" + noise), (0xE1, EXTENSION + noise), (0xED, b"Photoshop 3.0\0" + noise)),
        tiff({700: b"subject" + noise, 33723: block, 34377: noise}),
        photo(kind, PACKET)[:at] + noise + photo(kind, PACKET)[at + len(noise) :],
    ]
    for data in files:
        found = embedded_keywords(data)
        assert all(isinstance(word, str) and "\0" not in word for word in (*found.given, *found.problems))
