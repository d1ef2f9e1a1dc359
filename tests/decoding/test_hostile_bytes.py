"""Any bytes give a picture or a `DecodeError`: an exception of our own would end a run."""

from __future__ import annotations

import struct
import warnings
from contextlib import suppress
from functools import cache

import pytest
from helpers import encoded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import FORMATS, blocks, png_chunk
from PIL import Image

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.heif import referenced_pixels
from flowers_batch.decoding.jpeg import only_end_is_missing
from flowers_batch.decoding.metadata import strip_metadata
from flowers_batch.decoding.raw import is_raw

REASONS = {"not_an_image", "truncated", "too_large", "unsupported"}
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}
SHORT = st.binary(max_size=2) | st.binary(max_size=20)
LONG, HUGE = (
    st.one_of(st.integers(0, 9), st.sampled_from([top // 2, top - 1]), st.integers(0, top - 1))
    for top in (1 << 32, 1 << 64)
)


def check(data: bytes) -> None:
    """Read and decode bytes: nothing but a `DecodeError` may be raised."""
    with suppress(DecodeError):
        assert isinstance(strip_metadata(data)[1], int)
    assert is_raw(data) in (True, False)
    assert referenced_pixels(data) >= 0
    assert only_end_is_missing(data) in (True, False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about TIFFs
        try:
            assert decode(data, 100_000).pixels.shape == (224, 224, 3)
        except DecodeError as error:
            assert error.reason in REASONS


@cache
def photo(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(blocks(), kind, **FORMATS[kind][0], **({} if kind in ("GIF", "BMP") else {"exif": exif.tobytes()}))


@st.composite
def damaged(draw: st.DrawFn, kind: str) -> bytes:
    data = photo(kind)
    for _ in range(draw(st.integers(1, 5))):
        # Half of all damage near the beginning, where the headers are.
        at = draw(st.integers(0, len(data)) | st.integers(0, min(len(data), 200)))
        new = draw(st.binary(max_size=4) | LONG.map(lambda number: number.to_bytes(4, "big")))
        data = data[:at] + new + data[at + draw(st.sampled_from([len(new), 0, 4, len(data)])) :]
    return data


def jpegs() -> st.SearchStrategy[bytes]:
    starts = st.sampled_from([b"", b"Exif\0\0", b"JFIF\0", b"Adobe", b"\1", b"\x08\0\x10\0\x10\3"])
    kinds = st.sampled_from([0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xE0, 0xE1, 0xEE])

    def segment(kind: int, size: int | None, start: bytes, rest: bytes) -> bytes:
        content = start + rest
        return struct.pack(">BBH", 0xFF, kind, len(content) + 2 if size is None else size) + content

    segments = st.builds(segment, kinds, st.sampled_from([None, None, None, 0, 3, 65535]), starts, SHORT)
    return st.lists(segments, max_size=9).map(lambda parts: b"\xff\xd8" + b"".join(parts))


def pngs() -> st.SearchStrategy[bytes]:
    kinds = st.sampled_from([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"tEXt", b"zTXt", b"iTXt"])
    texts = st.sampled_from([b"", b"exif\0", b"Raw profile type exif\0\0", b"XML:com.adobe.xmp\0\1"])
    chunk = st.builds(lambda kind, text, rest: png_chunk(kind, text + rest), kinds, texts, SHORT)
    start, header = b"\x89PNG\r\n\x1a\n", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    first = st.sampled_from([start, start + png_chunk(b"IHDR", header)])
    return st.builds(lambda first, parts: first + b"".join(parts), first, st.lists(chunk, max_size=6))


def webps() -> st.SearchStrategy[bytes]:
    kinds = st.sampled_from([b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANMF", b"EXIF", b"XMP ", b"ICCP"])
    chunk = st.builds(lambda kind, size, rest: kind + struct.pack("<I", size) + rest, kinds, LONG, SHORT)
    return st.lists(chunk, max_size=6).map(lambda parts: b"RIFF\0\0\0\0WEBP" + b"".join(parts))


@st.composite
def tiffs(draw: st.DrawFn) -> bytes:
    """A directory in which each value may have any type and count, such as a tile's width."""
    mark, order = draw(st.sampled_from([(b"II", "<"), (b"MM", ">")]))
    big = draw(st.booleans())
    plain = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: 8, 279: 64, 322: 16, 323: 16}
    odd = draw(
        st.dictionaries(
            st.sampled_from([*plain, 322, 323, 322, 323, 274, 284, 320, 324, 325, 338, 700]), HUGE, max_size=4
        )
    )
    form = order + ("HHQQ" if big else "HHII")
    entries = b""
    for tag, value in sorted((plain | odd).items()):
        kind, count = (
            (draw(st.sampled_from([2, 7]) | st.integers(0, 18)), draw(st.integers(1, 3) | LONG))
            if tag in odd
            else (4, 1)
        )
        entries += struct.pack(form, tag, kind, count, value if big else value & 0xFFFFFFFF)
    header = struct.pack(order + "HHHQQ", 43, 8, 0, 16, len(entries) // 20) if big else b""
    header = header or struct.pack(order + "HIH", 42, 8, len(entries) // 12)
    return mark + header + entries + bytes(100)


def heifs() -> st.SearchStrategy[bytes]:
    def box(kinds: list[bytes], content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
        size = st.sampled_from([None, None, None, 0, 1, 7, 0xFFFFFFFF])

        def build(kind: bytes, size: int | None, rest: bytes) -> bytes:
            return struct.pack(">I", len(rest) + 8 if size is None else size) + kind + rest

        return st.builds(build, st.sampled_from(kinds), size, content)

    def several(parts: st.SearchStrategy[bytes], before: bytes = b"") -> st.SearchStrategy[bytes]:
        return st.lists(parts, max_size=4).map(lambda parts: before + b"".join(parts))

    numbers = st.builds(bytes.__add__, st.sampled_from([b"\0\0\0\0", b"\1\0\0\1", b"\2\0\0\0"]), st.binary(max_size=40))
    inner = box([b"infe", b"ispe", b"ipma", b"dimg", b"pitm"], numbers)
    middle = box([b"iinf", b"ipco", b"iref", b"iprp", b"iloc"], several(inner, bytes(4)) | several(inner) | numbers)
    outer = box([b"iprp", b"iinf", b"iref", b"iloc"], several(middle) | several(inner, bytes(6)) | numbers)
    kind = st.sampled_from([b"\0\0\0\x10ftypheic\0\0\0\0", b"\0\0\0\x10ftypavif\0\0\0\0"])
    return st.builds(lambda kind, boxes: kind + boxes, kind, several(box([b"meta"], several(outer, bytes(4)))))


def boxes(start: bytes, kinds: list[bytes], codestreams: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    size = st.sampled_from([None, None, None, 0, 1, 7, 0xFFFFFFFF])
    content = st.one_of(SHORT, codestreams, codestreams.map(lambda rest: b"\0\0\0\0" + rest))

    def build(kind: bytes, size: int | None, rest: bytes) -> bytes:
        return struct.pack(">I", len(rest) + 8 if size is None else size) + kind + rest

    box = st.builds(build, st.sampled_from(kinds), size, content)
    return st.one_of(codestreams, st.lists(box, max_size=5).map(lambda parts: start + b"".join(parts)))


def jpeg_xls() -> st.SearchStrategy[bytes]:
    headers = st.binary(max_size=60).map(lambda rest: b"\xff\x0a" + rest)
    return boxes(b"\0\0\0\x0cJXL \r\n\x87\n", [b"ftyp", b"jxlc", b"jxlp", b"Exif", b"jbrd"], headers)


def jpeg_2000s() -> st.SearchStrategy[bytes]:
    size = st.tuples(*[st.sampled_from([0, 8, 16, 1 << 31, (1 << 32) - 1])] * 8, st.integers(0, 5))
    header = size.map(lambda numbers: b"\xff\x4f\xff\x51\0\x2f\0\0" + struct.pack(">8IH", *numbers) + b"\7\1\1" * 3)
    segment = st.builds(
        lambda kind, size, rest: struct.pack(">HH", kind, len(rest) + 2 if size is None else size) + rest,
        st.sampled_from([0xFF52, 0xFF5C, 0xFF64, 0xFF90, 0xFF93, 0xFFD9]),
        st.sampled_from([None, None, 0, 10, 65535]),
        SHORT,
    )
    segments = st.lists(segment, max_size=6).map(b"".join)
    kinds = [b"ftyp", b"jp2h", b"jp2c", b"uuid", b"ihdr", b"colr", b"pclr"]
    return boxes(b"\0\0\0\x0cjP  \r\n\x87\n", kinds, st.builds(bytes.__add__, header, segments) | segments)


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_file_gives_a_picture_or_a_decode_error(kind):
    settings(max_examples=70, **QUIET)(given(damaged(kind))(check))()


@pytest.mark.parametrize(
    "files",
    [jpegs(), pngs(), webps(), tiffs(), heifs(), jpeg_xls(), jpeg_2000s()],
    ids=["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "JPEG XL", "JPEG 2000"],
)
def test_parts_in_any_order_give_a_picture_or_a_decode_error(files):
    settings(max_examples=200, **QUIET)(given(files)(check))()
