"""JPEG files whose end is missing: a photo if all its pixels are there."""

from __future__ import annotations

import re

import numpy as np
import pytest
from helpers import encoded, random_pixels
from PIL import Image

from flowers_batch.decoding.decode_photo import decode_photo
from flowers_batch.decoding.errors import DecodeError

KINDS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True, "subsampling": 0, "quality": 98},
    "restarts": {"restart_marker_rows": 1},
    "progressive with restarts": {"progressive": True, "restart_marker_blocks": 3},
}


def smooth(mode: str) -> Image.Image:
    return Image.fromarray(random_pixels(6, 9)).resize((90, 60), Image.Resampling.BICUBIC).convert(mode)


def reason(data: bytes) -> str:
    with pytest.raises(DecodeError) as error:
        decode_photo(data)
    return error.value.reason


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_jpeg_without_its_end_marker_is_decoded(mode, options):
    data = encoded(smooth(mode), "JPEG", **options)
    for cut in (data[:-2], data[:-1], data[:-1] + b"\xff\xff"):
        assert np.array_equal(decode_photo(cut), decode_photo(data))
    if mode != "CMYK":
        assert np.array_equal(decode_photo(data[:-2], min_side=20), decode_photo(data, min_side=20))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_jpeg_that_lacks_anything_else_is_truncated(mode, options):
    data = encoded(smooth(mode), "JPEG", **options)
    markers = [found.start() for found in re.finditer(rb"\xff[\xc4\xda\xd0-\xd7]", data)]  # where scans and rows begin
    for length in {
        *range(len(data) - 40, len(data) - 2),
        *markers,
        *(at + 1 for at in markers),
        *(at - 1 for at in markers),
    }:
        assert reason(data[:length]) == "truncated"


@pytest.mark.parametrize("garbage", [bytes(1000), b"\xff\xd8\xff", b"motion photo" * 100])
def test_what_follows_the_end_marker_is_ignored(garbage):
    for mode in ("RGB", "CMYK"):
        data = encoded(smooth(mode), "JPEG")
        assert np.array_equal(decode_photo(data + garbage), decode_photo(data))


def test_other_formats_without_their_ends_are_decoded():
    picture = smooth("RGB")
    for kind, size in (("PNG", 12), ("PNG", 16), ("GIF", 1), ("GIF", 2)):
        data = encoded(picture, kind)
        assert np.array_equal(decode_photo(data[:-size]), decode_photo(data))
    bitmap = encoded(picture, "BMP")
    for size in (0, 5, 2**32 - 1):
        assert np.array_equal(decode_photo(bitmap[:2] + size.to_bytes(4, "little") + bitmap[6:]), decode_photo(bitmap))
