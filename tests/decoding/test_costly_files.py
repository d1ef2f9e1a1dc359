"""Files made to take far more time than photos: what can be counted is refused before anything is decoded."""

from __future__ import annotations

import struct
import time
import zlib

import numpy as np
import pytest
from helpers import encoded, random_pixels
from image_files import blocks, box, png_chunk
from PIL import Image

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.decode_photo import decode_photo
from flowers_batch.decoding.errors import DecodeError

MAX_SECONDS = 3.0  # of processor time, on a busy machine; without their limits these files take more, or are decoded
REFINEMENT = b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0\0\x10"  # a scan of all DC coefficients' last bit, without any data


def seconds_and_error(data: bytes) -> tuple[float, DecodeError | None]:
    begun = time.process_time()
    try:
        decode(data)
    except DecodeError as error:
        return time.process_time() - begun, error
    return time.process_time() - begun, None


def progressive(height: int, width: int) -> bytes:
    return encoded(np.zeros((height, width, 3), np.uint8), "JPEG", progressive=True)


def assert_refused(data: bytes, words: str) -> None:
    seconds, error = seconds_and_error(data)
    assert error
    assert error.reason == "unsupported"
    assert words in str(error)
    assert seconds < MAX_SECONDS


@pytest.mark.parametrize(
    "scan",
    [
        REFINEMENT,
        REFINEMENT + b"\xff\xff\xff",
        REFINEMENT + b"\xff\xd0" * 9,
        # Between restarts libjpeg passes over an unknown marker, which has no length there.
        b"\xff\xdd\0\4\0\1" + REFINEMENT + b"\xff\x10\xff\xff",
    ],
    ids=["plain", "padded", "with restarts", "behind an unknown marker"],
)
def test_jpeg_of_thousands_of_scans_is_unsupported(scan):
    data = progressive(480, 640)
    assert_refused(data[:-2] + scan * 2000 + data[-2:], "in more than 300 scans")


def test_jpeg_of_thousands_of_sequential_scans_is_unsupported():
    data = encoded(blocks(), "JPEG")
    at = data.index(b"\xff\xda")
    assert_refused(data[:at] + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 2000 + b"\xff\xd9", "in more than 300 scans")


def test_scans_that_are_allowed_are_fewer_for_a_huge_jpeg():
    data = progressive(480, 640)
    data = data[:-2] + REFINEMENT * 200 + data[-2:]
    assert decode(data).width == 640
    at = data.index(b"\xff\xc2") + 5
    assert_refused(data[:at] + struct.pack(">HH", 5000, 8000) + data[at + 4 :], "in more than 100 scans")


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_markers_of_scans_in_metadata_and_behind_the_end_do_not_count(options):
    data = encoded(blocks(), "JPEG", **options)
    markers = b"\xff\xda" * 1000
    comment = b"\xff\xfe" + struct.pack(">H", len(markers) + 2) + markers
    changed = data[:2] + comment + data[2:] + markers
    assert np.array_equal(decode_photo(changed), decode_photo(data))


def test_jpeg_of_a_hundred_thousand_segments_is_unsupported():
    data = encoded(blocks(), "JPEG")
    for segment in (b"\xff\xfe\0\2", b"\xff\xc4\0\2", b"\xff\xdd\0\4\0\0"):
        assert_refused(data[:2] + segment * 150_000 + data[2:], "more than 100000 segments")


@pytest.mark.parametrize("stop", [b"\0", b"\xd0"], ids=["a stuffed byte", "a restart"])
def test_padding_before_no_marker_takes_no_quadratic_time(stop):
    data = encoded(blocks(), "JPEG")
    seconds, error = seconds_and_error(data[:-20] + b"\xff" * 40_000 + stop)  # its end is missing
    assert error is None or error.reason == "truncated"
    assert seconds < MAX_SECONDS


def test_only_the_last_text_of_a_png_is_decompressed():
    data = encoded(blocks(), "PNG")
    text = png_chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(bytes(1 << 20)))
    seconds, error = seconds_and_error(data[:33] + text * 4000 + data[33:])
    assert error is None
    assert seconds < MAX_SECONDS


def test_png_of_hundreds_of_thousands_of_chunks_is_unsupported():
    data = encoded(blocks(), "PNG")
    assert_refused(data[:33] + png_chunk(b"IDAT", b"") * 250_000 + data[33:], "more than 200000 chunks")


def test_webp_of_hundreds_of_thousands_of_chunks_is_unsupported():
    data = encoded(random_pixels(9, 8), "WEBP", lossless=True, exif=Image.Exif().tobytes())
    assert data[12:16] == b"VP8X"
    assert_refused(data[:30] + b"abcd\0\0\0\0" * 250_000 + data[30:], "more than 200000 chunks")


def tiff_of(entries: list[tuple[int, int, int, int]], rest: bytes) -> bytes:
    """A TIFF whose first directory is that, followed by what it refers to: tag, type, count and value or place."""
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4) + rest


def grey_tiff(width: int, height: int, *entries: tuple[int, int, int, int], rest: bytes) -> bytes:
    common = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    return tiff_of([*common, *entries], rest)


def test_tiff_of_hundreds_of_thousands_of_strips_is_unsupported():
    count, start = 250_000, 10 + 12 * 9 + 4
    places = struct.pack("<I", start) * count + struct.pack("<I", 1) * count
    strips = ((259, 3, 1, 1), (273, 4, count, start), (278, 4, 1, 1), (279, 4, count, start + 4 * count))
    assert_refused(grey_tiff(1, count, *strips, rest=places), "more than 200000 strips or tiles")


def test_tiles_far_larger_than_a_tiff_count_as_pixels():
    side, count, start = 4096, 20, 10 + 12 * 10 + 4
    content = zlib.compress(bytes(side * side))
    places = struct.pack("<I", start + 8 * count) * count + struct.pack("<I", len(content)) * count
    tiles = ((259, 3, 1, 8), (322, 4, 1, side), (323, 4, 1, side), (324, 4, count, start), (325, 4, count, start + 80))
    seconds, error = seconds_and_error(grey_tiff(1, side * count, *tiles, rest=places + content))
    assert error
    assert error.reason == "too_large"
    assert "4096 x 81920 pixels" in str(error)
    assert seconds < MAX_SECONDS


def test_repeated_xmp_of_a_tiff_is_read_once():
    start, size = 10 + 12 * 20_009 + 4, 1 << 20
    strips = ((259, 3, 1, 1), (273, 4, 1, start), (278, 4, 1, 64), (279, 4, 1, 4096))
    data = grey_tiff(64, 64, *strips, *[(700, 1, size, start)] * 20_000, rest=bytes(size))
    seconds, error = seconds_and_error(data)
    assert error is None
    assert seconds < MAX_SECONDS


def heif_of_tiles(rows: int, columns: int, tile: int, width: int, height: int) -> bytes:
    """A HEIF that is a grid of one tile, used again and again (ISO 23008-12, 6.6.2.3)."""
    flat = encoded(np.zeros((tile, tile, 3), np.uint8), "HEIF", quality=10)
    at = flat.index(b"hvcC") - 4
    codec = flat[at : at + int.from_bytes(flat[at : at + 4], "big")]
    coded, grid = flat[flat.index(b"mdat") + 4 :], struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)
    sizes = [box(b"ispe", struct.pack(">II", *size), 0) for size in ((tile, tile), (width, height))]
    links = struct.pack(">IHBBHBBB", 2, 1, 1, 3, 2, 2, 0x81, 2)
    items = [
        box(b"infe", struct.pack(">HH", *item) + kind, 2) for item, kind in (((1, 0), b"grid\0"), ((2, 0), b"hvc1\0"))
    ]
    tiles = struct.pack(f">HH{rows * columns}H", 1, rows * columns, *[2] * rows * columns)

    def meta(place: int) -> bytes:
        places = struct.pack(">HH", 0x4400, 2) + struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(grid))
        places += struct.pack(">HHHHII", 2, 0, 0, 1, place, len(coded))
        properties = box(b"ipco", codec + b"".join(sizes)) + box(b"ipma", links, 0)
        parts = [
            box(b"hdlr", bytes(4) + b"pict" + bytes(13), 0),
            box(b"pitm", b"\0\1", 0),
            box(b"iloc", places, 1),
            box(b"iinf", b"\0\2" + b"".join(items), 0),
            box(b"iref", box(b"dimg", tiles), 0),
            box(b"iprp", properties),
            box(b"idat", grid),
        ]
        return box(b"meta", b"".join(parts), 0)

    kind = box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    return kind + meta(len(kind) + len(meta(0)) + 8) + box(b"mdat", coded)


def test_heif_of_tiles_far_larger_than_itself_is_unsupported():
    assert_refused(heif_of_tiles(20, 20, 512, 100, 100), "is made of images of 104867600 pixels")
    assert decode(heif_of_tiles(3, 2, 64, 128, 192)).height == 192
