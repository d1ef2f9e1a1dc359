"""Large JPEG files decoded to a fraction of their size, nearly as if they were not."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import encoded, random_pixels
from image_files import blocks
from PIL import Image

from flowers_batch.decoding.decode import FAST_SIDE, decode
from flowers_batch.decoding.decode_photo import decode_photo
from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.jpeg import jpeg_scale

# Decoded to a half and to a quarter; sides that the scale divides, and others.
SIZES = [(1344, 1344), (1345, 1601), (1603, 1347), (2688, 2693), (2691, 2689)]
MOST = 0.2  # levels: a shift by one pixel of the full size makes it 0.9 or more


def smooth(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """A photo without details finer than a resized pixel."""
    small = Image.fromarray(random_pixels(24, 24, seed=height))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def jpeg(photo: Image.Image, **options) -> bytes:
    return encoded(photo, "JPEG", quality=95, **options)


def both(data: bytes):
    return decode(data), decode(data, mode="fast")


def difference(data: bytes) -> float:
    """The root mean square of the differences, in levels."""
    exact, fast = both(data)
    assert (exact.width, exact.height) == (fast.width, fast.height)
    assert np.abs(exact.pixels - fast.pixels).max() < 2  # at the border it is largest
    return float(np.sqrt(np.mean((exact.pixels - fast.pixels) ** 2)))


def test_scale_keeps_three_times_the_side_of_the_network():
    assert FAST_SIDE == 3 * 224
    for side, scale in ((671, 1), (1343, 1), (1344, 2), (2687, 2), (2688, 4), (5375, 4), (5376, 8), (50_000, 8)):
        assert jpeg_scale((side, 60_000), FAST_SIDE) == jpeg_scale((60_000, side), FAST_SIDE) == scale


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_fast_pixels_are_nearly_the_exact_ones(height, width):
    data = jpeg(smooth(height, width), subsampling=0)
    assert decode_photo(data, min_side=FAST_SIDE).shape != (height, width, 3)
    assert difference(data) < MOST


@pytest.mark.parametrize("options", [{"subsampling": 2}, {"subsampling": 1}, {"progressive": True}])
def test_fast_decodes_every_kind_of_jpeg(options):
    assert difference(jpeg(smooth(1345, 1601), **options)) < 2 * MOST


@pytest.mark.parametrize("orientation", range(2, 9))
def test_fast_pixels_of_every_orientation_are_in_place(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(smooth(1345, 1603), subsampling=0, exif=exif.tobytes())
    assert difference(data) < MOST


def test_fast_decodes_grey_photos():
    exact, fast = both(jpeg(smooth(1400, 1500, "L")))
    assert 0 < np.abs(exact.pixels - fast.pixels).max() < 2
    assert np.array_equal(fast.pixels[..., 0], fast.pixels[..., 2])


@pytest.mark.parametrize(
    "data",
    [
        encoded(smooth(1400, 1500), "PNG", compress_level=1),
        jpeg(smooth(1400, 1500, "CMYK")),
        jpeg(smooth(1343, 1500)),
        encoded(blocks(), "JPEG"),
    ],
    ids=["PNG", "CMYK", "too small", "small"],
)
def test_fast_is_exact_for_other_photos(data):
    exact, fast = both(data)
    assert np.array_equal(exact.pixels, fast.pixels)
    assert exact.phash == fast.phash


def test_fast_refuses_truncated_photos():
    data = jpeg(smooth(1400, 1500))
    with pytest.raises(DecodeError) as error:
        decode(data[: len(data) // 2], mode="fast")
    assert error.value.reason == "truncated"
    assert np.array_equal(decode(data[:-2], mode="fast").pixels, decode(data, mode="fast").pixels)


def test_pixels_are_kept_when_memory_is_reused():
    one, other = jpeg(smooth(1400, 1500)), jpeg(smooth(1344, 1400))
    kept = decode(one, mode="fast").pixels
    before = kept.copy()
    decode(other)
    assert np.array_equal(kept, before)


@pytest.mark.slow
def test_fast_hashes_and_pixels_of_cameras_are_nearly_the_exact_ones(camera_photos):
    paths = sorted(camera_photos.glob("*.jpg"), key=lambda path: path.stat().st_size)
    assert paths
    for path in paths[:3]:
        exact, fast = both(path.read_bytes())
        assert (exact.phash ^ fast.phash).bit_count() <= 4, path
        assert np.sqrt(np.mean((exact.pixels - fast.pixels) ** 2)) < 0.5, path


def test_fast_hash_is_nearly_the_exact_one():
    noisy = np.asarray(smooth(1344, 1401)) // 2 + random_pixels(1344, 1401) // 8
    exact, fast = both(jpeg(Image.fromarray(noisy)))
    assert (exact.phash ^ fast.phash).bit_count() <= 4
