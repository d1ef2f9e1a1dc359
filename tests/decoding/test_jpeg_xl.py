"""JPEG XL: upright, of any depth, first frame, and its size known before anything is decoded."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
from helpers import encoded
from image_files import UNDO, blocks, box, little_memory, off
from PIL import Image

from flowers_batch.decoding import jpeg_xl
from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.decode_photo import decode_photo
from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.jpeg_xl import open_jpeg_xl, strip_jpeg_xl

SIGNATURE = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")


def jxl(values: np.ndarray, **options) -> bytes:
    return imagecodecs.jpegxl_encode(values, **{"lossless": True, "numthreads": 1, "effort": 1} | options)


def refused(data: bytes, max_pixels: int = 10**8) -> DecodeError:
    with pytest.raises(DecodeError) as error:
        decode(data, max_pixels)
    return error.value


def codestream(*numbers: tuple[int, int]) -> bytes:
    """The beginning of a file: numbers and how many bits each has."""
    value = place = 0
    for number, bits in numbers:
        value |= number << place
        place += bits
    return b"\xff\x0a" + value.to_bytes(place // 8 + 40, "little")


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("container", [False, True])
def test_jpeg_xl_of_any_depth_and_colours_is_decoded(container, depth):
    unit = depth(1 if depth is np.uint8 else 257)
    colours, grey = blocks().astype(depth) * unit, blocks()[:, :, 0].astype(depth) * unit
    assert off(decode_photo(jxl(colours, usecontainer=container)), blocks()) == 0
    assert off(decode_photo(jxl(grey, usecontainer=container)), blocks()[:, :, :1].repeat(3, 2)) == 0


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_alpha_of_a_jpeg_xl_is_composited_on_white(depth):
    unit = depth(1 if depth is np.uint8 else 257)
    alpha = np.full((48, 72, 1), 51, np.uint8)
    for colours in (blocks(), blocks()[:, :, :1]):
        data = jxl(np.dstack([colours, alpha]).astype(depth) * unit)
        assert (
            off(
                decode_photo(data),
                np.round(colours * 0.2 + 255 * 0.8).astype(np.uint8).repeat(3 // colours.shape[2], 2),
            )
            <= 1
        )


@pytest.mark.parametrize("bits", [10, 12])
def test_jpeg_xl_of_odd_depths_is_scaled(bits):
    deep = np.round(blocks() / 255 * (2**bits - 1)).astype(np.uint16)
    assert off(decode_photo(jxl(deep, bitspersample=bits)), blocks()) == 0


def test_first_frame_of_a_jpeg_xl_animation_counts():
    frames = np.stack([blocks(), blocks()[::-1], blocks()[:, ::-1]])
    data = jxl(frames)
    assert imagecodecs.jpegxl_decode(data).shape == (3, 48, 72, 3)
    assert off(decode_photo(data), blocks()) == 0


@pytest.mark.parametrize("orientation", UNDO)
def test_jpeg_xl_made_of_a_turned_jpeg_comes_out_upright(orientation):
    exif, taken = Image.Exif(), Image.fromarray(blocks())
    exif[0x0112] = orientation
    if UNDO[orientation] is not None:
        taken = taken.transpose(UNDO[orientation])
    jpeg = encoded(taken, "JPEG", quality=100, subsampling=0, exif=exif.tobytes())
    data = imagecodecs.jpegxl_encode_jpeg(jpeg, usecontainer=True)
    assert b"jbrd" in data
    assert off(decode_photo(data), blocks()) <= 3
    assert decode(data).width == 72


def test_values_without_a_known_white_are_unsupported():
    for kind in (np.float32, np.float16):
        assert refused(jxl(blocks().astype(kind) / kind(255))).reason == "unsupported"


@pytest.mark.parametrize("ratio", range(1, 8))
def test_size_is_read_from_the_header(ratio):
    above, below = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    assert open_jpeg_xl(codestream((0, 1), (1, 2), (999, 13), (ratio, 3), (1, 1))).size == (1000 * above // below, 1000)
    assert open_jpeg_xl(codestream((1, 1), (4, 5), (ratio, 3), (1, 1))).size == (40 * above // below, 40)


def test_sizes_of_encoded_files_are_read():
    for height, width in ((1, 1), (8, 16), (256, 256), (257, 300), (40, 9000), (3, 20_000)):
        data = jxl(np.zeros((height, width, 3), np.uint8))
        assert open_jpeg_xl(strip_jpeg_xl(data)).size == (width, height)


def test_depth_is_read_behind_the_fields_of_an_animation_with_a_preview():
    size, display = ((1, 1), (4, 5), (1, 3)), ((1, 1), (4, 5), (0, 3), (9, 5))
    preview = ((0, 1), (1, 2), (3, 8), (0, 3), (2, 2), (5, 10))
    animation = ((2, 2), (5, 10), (0, 2), (1, 2), (2, 3), (1, 1))
    extra = ((5, 3), (1, 1), *display, (1, 1), *preview, (1, 1), *animation)
    with pytest.raises(DecodeError, match="up to 16 bits"):
        open_jpeg_xl(codestream(*size, (0, 1), (1, 1), *extra, (0, 1), (3, 2), (16, 6)))
    assert open_jpeg_xl(codestream(*size, (0, 1), (1, 1), *extra, (0, 1), (3, 2), (15, 6))).size == (40, 40)


def test_huge_jpeg_xl_is_refused_by_its_header():
    data = codestream((0, 1), (3, 2), (1 << 29, 30), (1, 3), (1, 1))
    with little_memory():
        error = refused(data)
    assert error.reason == "too_large" and "536870913 x 536870913 pixels" in str(error)


@pytest.mark.parametrize("tenths", range(10))
@pytest.mark.parametrize("container", [False, True])
def test_jpeg_xl_that_is_cut_short_is_truncated(container, tenths):
    data = jxl(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8), usecontainer=container)
    assert refused(data[: max(14, len(data) * tenths // 10)]).reason == "truncated"


def test_parts_of_a_codestream_are_joined_and_metadata_ignored():
    plain = jxl(blocks())
    parts = [box(b"jxlp", struct.pack(">I", place) + part) for place, part in enumerate((plain[:1], plain[1:90]))]
    parts += [
        box(b"Exif", b"\0" * 4 + b"broken"),
        box(b"jxlp", struct.pack(">I", 1 << 31 | 2) + plain[90:]),
        box(b"jbrd", b"x"),
    ]
    assert strip_jpeg_xl(SIGNATURE + b"".join(parts)) == plain
    assert off(decode_photo(SIGNATURE + b"".join(parts)), blocks()) == 0
    assert str(refused(SIGNATURE + b"\0\0\0\x08free" * 100_000)).startswith("It has more than 100000 boxes")


def test_jpeg_xl_without_libjxl_says_what_to_install(monkeypatch):
    monkeypatch.setattr(jpeg_xl, "imagecodecs", None)
    error = refused(codestream((1, 1), (4, 5), (1, 3), (1, 1)))
    assert error.reason == "unsupported" and "pip install 'flowers-batch[jxl]'" in str(error)
