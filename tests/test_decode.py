from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import skimage.transform
from helpers import encoded, random_pixels
from PIL import Image

from flowers_batch.decode import DecodeError, decode, decode_photo, perceptual_hash, resize
from flowers_batch.drawings import draw_flower
from tensorflow_vgg.images import load_image

REASONS = {"not_an_image", "truncated", "too_large", "unsupported"}
UNDO = {  # what a camera did to the upright photo, for each EXIF orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# Each format, and how far a pixel may be off after it.
FORMATS = {
    "PNG": ({}, 0),
    "BMP": ({}, 0),
    "TIFF": ({"compression": "tiff_lzw"}, 0),
    "GIF": ({}, 0),
    "WEBP": ({"lossless": True}, 0),
    "HEIF": ({"quality": -1, "chroma": 444, "matrix_coefficients": 0}, 0),
    "JPEG": ({"quality": 100, "subsampling": 0}, 2),
    "MPO": ({"quality": 100, "subsampling": 0}, 2),
    "AVIF": ({"quality": 100, "subsampling": "4:4:4"}, 4),
}


def blocks(height: int = 48, width: int = 72) -> np.ndarray:
    """Even squares of a few colours: what every format keeps nearly exactly, and no turning leaves as it is."""
    colours = np.array([(230, 30, 30), (30, 200, 30), (30, 30, 220), (240, 240, 240), (20, 20, 20)], np.uint8)
    small = colours[np.random.default_rng(7).integers(0, len(colours), (height // 8, width // 8))]
    return small.repeat(8, 0).repeat(8, 1)


def off(photo: np.ndarray, expected: np.ndarray) -> int:
    """The largest difference of two pictures' values."""
    assert photo.shape == expected.shape
    assert photo.dtype == np.uint8
    return int(np.abs(photo.astype(int) - expected.astype(int)).max())


def refused(data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as error:
        decode(data)
    assert error.value.reason in REASONS
    return error.value


def png_claiming(width: int, height: int) -> bytes:
    """A whole PNG of a few hundred bytes whose header tells of a picture of any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [1, 2, 3, 17, 223, 224, 225, 300, 336, 500, 1100])
def test_resize_equals_scikit_image(side):
    square = random_pixels(side, side, seed=side)
    expected = skimage.transform.resize(square / 255, (224, 224)) * 255
    result = resize(square)
    assert (result.dtype, result.shape) == (np.float32, (224, 224, 3))
    assert np.abs(result - expected).max() < 1e-3


@pytest.mark.parametrize(("height", "width"), [(300, 451), (451, 300), (240, 240), (225, 700), (90, 61), (224, 225)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_decode_equals_the_reference(tmp_path, kind, height, width):
    # Smooth noise: as hard as photos are, and its JPEG has colour at half the size, as photos' have.
    smooth = Image.fromarray(random_pixels(height // 8, width // 8)).resize((width, height), Image.Resampling.BICUBIC)
    data = encoded(smooth, kind)
    (tmp_path / "photo").with_suffix(f".{kind.lower()}").write_bytes(data)
    expected = load_image(tmp_path / f"photo.{kind.lower()}") * 255
    picture = decode(data)
    assert (picture.width, picture.height) == (width, height)
    assert picture.pixels.dtype == np.float32
    assert np.abs(picture.pixels - expected).max() < 1e-3


@pytest.mark.parametrize("orientation", UNDO)
@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "TIFF", "WEBP", "HEIF", "AVIF"])
def test_every_exif_orientation_comes_out_upright(kind, orientation):
    upright = blocks()
    taken = Image.fromarray(upright)
    if UNDO[orientation] is not None:
        taken = taken.transpose(UNDO[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options, allowed = FORMATS[kind]
    data = encoded(taken, kind, exif=exif if kind == "TIFF" else exif.tobytes(), **options)
    assert off(decode_photo(data), upright) <= allowed
    picture = decode(data)
    assert (picture.width, picture.height) == (72, 48)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_exif_does_not_know_is_passed_over(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert off(decode_photo(encoded(blocks(), exif=exif.tobytes())), blocks()) == 0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("broken", [b"XXXXXXXX", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"])
def test_broken_exif_costs_no_photo(broken):
    data = encoded(blocks(), "JPEG", exif=Image.Exif().tobytes() + bytes(16), quality=100, subsampling=0)
    at = data.index(b"Exif\0\0") + 6
    assert off(decode_photo(data[:at] + broken + data[at + len(broken) :]), blocks()) <= 2


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_decoded(kind):
    options, allowed = FORMATS[kind]
    assert off(decode_photo(encoded(blocks(), kind, **options)), blocks()) <= allowed


def test_name_plays_no_part_and_other_formats_are_no_images():
    assert refused(encoded(blocks(), "PPM")).reason == "not_an_image"


def test_grey_becomes_three_equal_channels():
    grey = random_pixels(20, 30, channels=1)
    for data in (encoded(grey), encoded(grey, "TIFF"), encoded(grey, "BMP")):
        assert off(decode_photo(data), np.stack([grey] * 3, axis=2)) == 0
    photo = decode_photo(encoded(blocks()[:, :, 0], "JPEG", quality=100))
    assert off(photo, blocks()[:, :, :1].repeat(3, 2)) <= 2


def test_palette_becomes_its_colours():
    few = Image.fromarray(blocks()).convert("P", palette=Image.Palette.ADAPTIVE, colors=5)
    assert few.mode == "P"
    assert off(decode_photo(encoded(few)), blocks()) == 0


def test_one_bit_becomes_black_and_white():
    bits = random_pixels(20, 30, channels=1) > 127
    expected = (bits[:, :, None] * np.uint8(255)).repeat(3, 2)
    for kind in ("PNG", "TIFF", "BMP"):
        assert off(decode_photo(encoded(Image.fromarray(bits), kind)), expected) == 0


def test_cmyk_jpeg_becomes_rgb():
    cmyk = Image.fromarray(blocks()).convert("CMYK")
    assert off(decode_photo(encoded(cmyk, "JPEG", quality=100)), blocks()) <= 4


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    deep = np.linspace(0, 65535, 20 * 30).round().astype(np.uint16).reshape(20, 30)
    expected = np.round(deep / 65535 * 255).astype(np.uint8)[:, :, None].repeat(3, 2)
    for kind in ("PNG", "TIFF"):
        data = encoded(Image.fromarray(deep), kind)
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == "I;16"
        assert off(decode_photo(data), expected) == 0


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_composited_on_white(kind):
    colours, alpha = random_pixels(20, 30), random_pixels(20, 30, seed=1, channels=1)
    alpha[0], alpha[1] = 0, 255
    data = encoded(np.dstack([colours, alpha]), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    share = alpha[:, :, None] / 255
    assert off(decode_photo(data), np.round(colours * share + 255 * (1 - share)).astype(np.uint8)) <= 1
    assert (decode_photo(data)[0] == 255).all()
    assert (decode_photo(data)[1] == colours[1]).all()


def test_grey_with_alpha_is_composited_on_white():
    data = encoded(Image.merge("LA", [Image.new("L", (9, 7), 100), Image.new("L", (9, 7), 51)]))
    assert off(decode_photo(data), np.full((7, 9, 3), round(100 * 0.2 + 255 * 0.8), np.uint8)) <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_colour_becomes_white(kind):
    picture = Image.new("P", (9, 7), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(0, (0, 0, 4, 7))
    photo = decode_photo(encoded(picture, kind, transparency=0))
    assert (photo[:, :4] == 255).all()
    assert (photo[:, 4:] == (200, 100, 50)).all()


def test_transparent_colour_of_rgb_becomes_white():
    picture = Image.new("RGB", (9, 7), (1, 2, 3))
    picture.paste((200, 100, 50), (0, 0, 4, 7))
    photo = decode_photo(encoded(picture, transparency=(1, 2, 3)))
    assert (photo[:, 4:] == 255).all()
    assert (photo[:, :4] == (200, 100, 50)).all()


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_first_frame_of_an_animation_counts(kind, options):
    first, others = Image.fromarray(blocks()), [Image.new("RGB", (72, 48), colour) for colour in ("red", "blue")]
    data = encoded(first, kind, save_all=True, append_images=others, duration=50, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    assert off(decode_photo(data), blocks()) == 0


@pytest.mark.parametrize("data", [b"", b"\0" * 1000, b"This is no picture, but a letter.\n", b"\xff\xd8", b"%PDF-1.4"])
def test_what_is_no_image_is_said_to_be_none(data):
    error = refused(data)
    assert error.reason == "not_an_image"
    assert (str(error) == "The file is empty.") == (data == b"")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "HEIF", "AVIF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_cut_file_is_truncated(kind, share):
    options = {} if kind == "GIF" else FORMATS[kind][0]
    data = encoded(random_pixels(60, 90), kind, **options)
    assert refused(data[: int(len(data) * share)]).reason in {"truncated", "not_an_image"}
    if kind in ("JPEG", "PNG"):
        assert refused(data[: int(len(data) * share)]).reason == "truncated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_file_cut_anywhere_gives_no_picture(kind):
    # Without the 12 bytes of PNG's end, or the 2 of JPEG's, all pixels are there.
    data = encoded(random_pixels(40, 50), kind)
    for length in range(0, len(data) - 32, 97):
        assert refused(data[:length]).reason in {"truncated", "not_an_image"}


def test_32_bit_values_are_unsupported():
    for mode in ("F", "I"):
        assert refused(encoded(Image.new(mode, (9, 7), 3), "TIFF")).reason == "unsupported"


def test_huge_picture_is_refused_from_its_header():
    data = png_claiming(50_000, 50_000)
    assert len(data) < 500
    tracemalloc.start()
    begun = time.perf_counter()
    error = refused(data)
    seconds, (_, peak) = time.perf_counter() - begun, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.reason == "too_large"
    assert str(error) == "It has 50000 x 50000 pixels; 178000000 are allowed (--max-pixels)."
    assert seconds < 1
    assert peak < 10 << 20


def test_picture_of_the_largest_allowed_size_is_not_refused():
    decode(encoded(blocks()), 48 * 72)
    with pytest.raises(DecodeError, match=r"^It has 72 x 48 pixels; 3455 are allowed \(--max-pixels\)\.$") as error:
        decode(encoded(blocks()), 48 * 72 - 1)
    assert error.value.reason == "too_large"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_file_gives_a_picture_or_a_decode_error_and_nothing_else(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(blocks(), kind, exif=exif.tobytes())
    draw = random.Random(3)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(draw.randint(1, 8)):
            # Half of all damage near the beginning, where the headers are.
            damaged[draw.randrange(len(data) if draw.random() < 0.5 else 200)] = draw.randrange(256)
        try:
            assert decode(bytes(damaged)).pixels.shape == (224, 224, 3)
        except DecodeError as error:
            assert error.reason in REASONS


def test_smallest_pictures_are_decoded():
    for height, width in ((1, 1), (1, 9), (9, 1), (2, 3)):
        picture = decode(encoded(np.full((height, width, 3), 77, np.uint8)))
        assert (picture.width, picture.height) == (width, height)
        assert np.abs(picture.pixels - 77).max() < 1e-3


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def test_perceptual_hash_stays_when_a_picture_is_resized_and_recompressed():
    for seed in range(5):
        drawn = Image.fromarray(draw_flower("roses", np.random.default_rng(seed)))
        copy = drawn.resize((drawn.width * 2 // 3, drawn.height * 2 // 3), Image.Resampling.LANCZOS)
        one, other = decode(encoded(drawn)).phash, decode(encoded(copy, "JPEG", quality=40)).phash
        assert distance(one, other) <= 10


def test_perceptual_hash_passes_over_fine_noise():
    drawn = draw_flower("roses", np.random.default_rng(0)).repeat(2, 0).repeat(2, 1)
    noisy = drawn.astype(int) + np.random.default_rng(1).integers(-90, 91, drawn.shape)
    assert distance(perceptual_hash(drawn), perceptual_hash(noisy.clip(0, 255).astype(np.uint8))) <= 6


def test_perceptual_hash_sets_half_of_its_bits():
    for seed in range(3):
        assert perceptual_hash(draw_flower("tulips", np.random.default_rng(seed))).bit_count() == 32


def test_heic_and_avif_are_decoded_by_a_process_that_imported_nothing_else(tmp_path):
    """Other libraries teach Pillow formats, too, when they happen to be imported."""
    script = "import sys; from flowers_batch.decode import decode; print(decode(open(sys.argv[1], 'rb').read()).width)"
    for kind in ("HEIF", "AVIF"):
        (tmp_path / kind).write_bytes(encoded(blocks(), kind))
        command = [sys.executable, "-c", script, str(tmp_path / kind)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "72\n"


def test_perceptual_hash_differs_between_pictures():
    kinds = ("daisy", "sunflowers", "tulips", "roses", "dandelion")
    hashes = [perceptual_hash(draw_flower(kind, np.random.default_rng(seed))) for seed, kind in enumerate(kinds)]
    assert all(distance(one, other) > 15 for one in hashes for other in hashes if one is not other)
    assert all(0 <= one < 2**64 for one in hashes)


def test_perceptual_hash_is_that_of_the_upright_photo():
    drawn = Image.fromarray(draw_flower("daisy", np.random.default_rng(2)))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(drawn.transpose(Image.Transpose.ROTATE_90), exif=exif.tobytes())
    assert decode(turned).phash == decode(encoded(drawn)).phash
