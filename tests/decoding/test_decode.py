from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import skimage.transform
from helpers import encoded, random_pixels
from image_files import FORMATS, UNDO, blocks, little_memory, off, png, tiff
from PIL import Image

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.decode_photo import decode_photo
from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.perceptual_hash import PerceptualHash, perceptual_hash
from flowers_batch.decoding.resizing import resize
from flowers_batch.demo.drawings import draw_flower
from tensorflow_vgg.images import load_image

REASONS = {"not_an_image", "truncated", "too_large", "unsupported"}
ARITHMETIC = {  # 16x16, grey, of four even quarters
    "SEQUENTIAL": "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQo"
    "KCgoKBggLDAsKDAkKCgr/yQALCAAQABABAREA/8wABgAQEAX/2gAIAQEAAD8A/wDzx2ipRy2u/9k=",
    "PROGRESSIVE": "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQo"
    "KCgoKBggLDAsKDAkKCgr/ygALCAAQABABAREA/8wABAAQ/9oACAEBAAAAAf8A545+Y2Di/8wABBAF/9oACAEBAAEFAsD/zAAEEAX/2gAIAQEABj8C"
    "wP/MAAQQBf/aAAgBAQABPyHA/9oACAEBAAAAEGD/zAAEEAX/2gAIAQEAAT8QwP/Z",
}


def refused(data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as error:
        decode(data)
    assert error.value.reason in REASONS
    return error.value


def retagged(data: bytes, tags: dict[int, int]) -> bytes:
    """A TIFF with other numbers in its directory."""
    changed = bytearray(data)
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", data, at)
        if tag in tags:
            struct.pack_into("<HHII", changed, at, tag, 4, 1, tags[tag])
    return bytes(changed)


def claiming(kind: str, width: int, height: int) -> bytes:
    """A small image file whose header claims another size."""
    if kind == "PNG":
        return png(width, height, 8, 2, bytes(100_000))
    data = encoded(blocks(), kind, **({} if kind == "GIF" else FORMATS[kind][0]))
    if kind == "TIFF":
        return retagged(data, {256: width, 257: height})
    marker, skip, form, sides = {
        "BMP": (b"BM", 18, "<ii", [width, height]),
        "GIF": (b"GIF8", 6, "<HH", [width, height]),
        "JPEG": (b"\xff\xc0", 5, ">HH", [height, width]),
        "WEBP": (b"VP8L", 9, "<I", [width - 1 | height - 1 << 14]),
        "AVIF": (b"ispe", 8, ">II", [width, height]),
        "HEIF": (b"ispe", 8, ">II", [width, height]),
    }[kind]
    at = data.index(marker) + skip
    return data[:at] + struct.pack(form, *sides) + data[at + struct.calcsize(form) :]


def refused_at_once(data: bytes) -> DecodeError:
    begun = time.perf_counter()
    with little_memory():
        error = refused(data)
    assert time.perf_counter() - begun < 1
    assert "memory." not in str(error)
    return error


@pytest.mark.parametrize("side", [1, 2, 3, 17, 223, 224, 225, 300, 336, 500, 601, 1100, 1999])
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


@pytest.mark.slow
def test_photos_of_cameras_equal_the_reference(camera_photos):
    paths = sorted(camera_photos.glob("*.jpg"), key=lambda path: path.stat().st_size)
    assert paths
    for path in paths[:2]:
        largest = np.abs(decode(path.read_bytes()).pixels - load_image(path) * 255).max()
        assert largest < 1e-3, path


def test_photo_of_a_camera_with_an_orientation_comes_out_upright(camera_photos):
    data = min(camera_photos.glob("*.jpg"), key=lambda path: path.stat().st_size).read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn it clockwise"
    segment = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    turned = data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]
    largest = np.abs(decode(turned).pixels - np.rot90(decode(data).pixels, -1)).max()
    assert largest < 1e-3


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
def test_unknown_exif_orientation_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert off(decode_photo(encoded(blocks(), exif=exif.tobytes())), blocks()) == 0


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True, "subsampling": 2}])
def test_kinds_of_jpeg_are_decoded(options):
    smooth = np.full((48, 72, 3), (200, 100, 50), np.uint8)
    assert off(decode_photo(encoded(smooth, "JPEG", quality=100, **options)), smooth) <= 2


@pytest.mark.parametrize("kind", ["SEQUENTIAL", "PROGRESSIVE"])
def test_arithmetic_coded_jpeg_is_decoded(kind):
    photo = decode_photo(base64.b64decode(ARITHMETIC[kind]))
    assert off(photo, np.uint8([[30, 90], [150, 220]]).repeat(8, 0).repeat(8, 1)[:, :, None].repeat(3, 2)) <= 2


def test_jpeg_of_12_bits_is_unsupported():
    # One grey block, with tables of one code each: it is complete, and decoders for 12 bits show it.
    table = bytes([1, *[0] * 15])
    segments = {
        b"\xdb": bytes([0]) + b"\1" * 64,
        b"\xc1": struct.pack(">BHHBBBB", 12, 8, 8, 1, 1, 0x11, 0),
        b"\xc4": b"\x00" + table + b"\0" + b"\x10" + table + b"\0",
        b"\xda": bytes([1, 1, 0, 0, 63, 0]),
    }
    body = b"".join(b"\xff" + marker + struct.pack(">H", len(s) + 2) + s for marker, s in segments.items())
    error = refused(b"\xff\xd8" + body + b"\x3f\xff\xd9")
    assert (error.reason, str(error)) == (
        "unsupported",
        "Images of this kind are not supported: cannot handle 12-bit layers.",
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_decoded(kind):
    options, allowed = FORMATS[kind]
    assert off(decode_photo(encoded(blocks(), kind, **options)), blocks()) <= allowed


def test_format_is_detected_from_the_content_alone():
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


def test_ycck_jpeg_becomes_rgb():
    # Adobe stores the negative of CMYK; its YCCK is that of CMYK as if it were RGB.
    negative = Image.fromarray(255 - blocks()).convert("YCbCr")
    planes = [Image.eval(plane, lambda value: 255 - value) for plane in negative.split()]
    cmyk = Image.merge("CMYK", [*planes, Image.new("L", negative.size, 0)])
    data = bytearray(encoded(cmyk, "JPEG", quality=100, subsampling=0))
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    data[at] = 2  # says that the first three are YCbCr
    assert off(decode_photo(bytes(data)), blocks()) <= 4


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_sixteen_bit_rgb_becomes_eight_bit(compression, byteorder):
    deep = random_pixels(20, 30).astype(np.uint16) * 257
    data = tiff(deep, photometric="rgb", compression=compression, byteorder=byteorder)
    assert off(decode_photo(data), (deep >> 8).astype(np.uint8)) == 0
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    assert off(decode_photo(png(30, 20, 16, 2, rows)), (deep >> 8).astype(np.uint8)) == 0


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


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_of_any_depth_is_composited_on_white(bits):
    def row(*values: int) -> bytes:
        return (
            b"\0" + np.array(values, f">u{bits // 8}").tobytes()
            if bits == 8
            else b"\0" + np.array(values, ">u2").tobytes()
        )

    unit = 2**bits // 255  # 1, or 257
    expected = [round(value * 0.2 + 255 * 0.8) for value in (100, 50, 25)]
    assert (
        off(decode_photo(png(1, 1, bits, 6, row(100 * unit, 50 * unit, 25 * unit, 51 * unit))), np.uint8([[expected]]))
        <= 1
    )
    assert (
        off(decode_photo(png(1, 1, bits, 4, row(100 * unit, 51 * unit))), np.full((1, 1, 3), expected[0], np.uint8))
        <= 1
    )


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_alpha_of_a_tiff_is_composited_on_white_premultiplied_or_not(depth):
    values = np.array([[[100, 50, 25, 51]]], depth) * (257 if depth is np.uint16 else 1)
    apart = decode_photo(tiff(values, photometric="rgb", extrasamples=["unassalpha"]))
    assert off(apart, np.uint8([[[224, 214, 209]]])) <= 1
    values[:, :, :3] //= 5  # 51 is a fifth of 255
    together = decode_photo(tiff(values, photometric="rgb", extrasamples=["assocalpha"]))
    assert off(together, apart) <= 1


def test_palette_with_alpha_is_composited_on_white():
    picture = Image.new("P", (9, 7), 1)
    picture.putpalette([10, 20, 30, 100, 50, 25])
    picture.paste(0, (0, 0, 4, 7))
    photo = decode_photo(encoded(picture, transparency=bytes([255, 51])))
    assert (photo[:, :4] == (10, 20, 30)).all()
    assert off(photo[:, 4:], np.full((7, 5, 3), (224, 214, 209), np.uint8)) <= 1


@pytest.mark.parametrize(
    ("bits", "colours", "clear", "values", "expected"),
    [
        (1, 0, b"\0\0", b"\x00\x40", ([255] * 3, [255] * 3)),
        (8, 0, b"\0\x64", b"\x00\x64\x32", ([255] * 3, [50] * 3)),
        (16, 0, b"\x12\x34", b"\x00\x12\x34\x12\x35", ([255] * 3, [18] * 3)),
        (8, 2, b"\0\1\0\2\0\3", b"\x00\1\2\3\1\2\4", ([255] * 3, [1, 2, 4])),
        (16, 2, b"\x12\x34" * 3, b"\x00" + b"\x12\x34" * 3 + b"\x80\x80" * 3, ([255] * 3, [128] * 3)),
    ],
)
def test_transparent_colour_of_a_png_becomes_white(bits, colours, clear, values, expected):
    photo = decode_photo(png(2, 1, bits, colours, values, clear))
    assert tuple(photo[0].tolist()) == expected


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_colour_becomes_white(kind):
    picture = Image.new("P", (9, 7), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(0, (0, 0, 4, 7))
    photo = decode_photo(encoded(picture, kind, transparency=0))
    assert (photo[:, :4] == 255).all()
    assert (photo[:, 4:] == (200, 100, 50)).all()


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_first_frame_of_an_animation_counts(kind, options):
    first, others = Image.fromarray(blocks()), [Image.new("RGB", (72, 48), colour) for colour in ("red", "blue")]
    data = encoded(first, kind, save_all=True, append_images=others, duration=50, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    assert off(decode_photo(data), blocks()) == 0


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 1000, b"This is no picture, but a letter.\n", b"\xff\xd8", b"%PDF-1.4", b"<svg/>"]
)
def test_other_content_is_not_an_image(data):
    error = refused(data)
    assert error.reason == "not_an_image"
    assert (str(error) == "The file is empty.") == (data == b"")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("tenths", range(1, 10))
def test_cut_file_is_truncated(kind, tenths):
    options = {} if kind == "GIF" else FORMATS[kind][0]
    data = encoded(random_pixels(60, 90), kind, **options)
    assert refused(data[: len(data) * tenths // 10]).reason == "truncated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_file_cut_anywhere_gives_no_picture(kind):
    # Without the 12 bytes of PNG's end, or the 2 of JPEG's, all pixels are there.
    data = encoded(random_pixels(40, 50), kind)
    for length in range(0, len(data) - 32, 97):
        assert refused(data[:length]).reason in {"truncated", "not_an_image"}


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int16, np.uint32])
def test_values_without_a_known_white_are_unsupported(kind):
    assert refused(tiff(random_pixels(9, 7, channels=1).astype(kind))).reason == "unsupported"
    if kind not in (np.int16, np.uint32):
        assert refused(tiff(random_pixels(9, 7).astype(kind), photometric="rgb")).reason == "unsupported"


def test_tiffs_that_would_be_decoded_wrongly_are_unsupported():
    deep = random_pixels(9, 8).astype(np.uint16)
    for data in (
        retagged(tiff(deep[:, :, 0]), {258: 12}),
        tiff(deep[:, :, 0], photometric="miniswhite"),
        tiff(np.moveaxis(deep, 2, 0).copy(), photometric="rgb", planarconfig="separate"),
    ):
        assert refused(data).reason == "unsupported"
    white_is_0 = random_pixels(9, 8, channels=1)
    assert off(decode_photo(tiff(white_is_0, photometric="miniswhite")), 255 - white_is_0[:, :, None].repeat(3, 2)) == 0


def test_compression_that_is_not_known_is_unsupported():
    jpeg_2000 = retagged(tiff(random_pixels(9, 8), photometric="rgb"), {259: 34712})
    assert refused(jpeg_2000).reason == "unsupported"


@pytest.mark.parametrize(
    ("kind", "width", "height"),
    [
        *((kind, 50_000, 50_000) for kind in ("PNG", "BMP", "GIF", "TIFF", "JPEG")),
        ("AVIF", 15_000, 15_000),
        ("WEBP", 16_383, 16_383),
        ("HEIF", 50_000, 50_000),
    ],
)
def test_huge_picture_is_refused_from_its_header(kind, width, height):
    data = claiming(kind, width, height)
    error = refused_at_once(data)
    assert error.reason == "too_large"
    if kind not in ("WEBP", "HEIF"):  # refused by their libraries
        assert str(error) == f"It has {width} x {height} pixels; 178000000 are allowed (max_pixels)."


def test_huge_tile_of_a_small_tiff_is_refused():
    data = tiff(random_pixels(16, 16), tile=(16, 16), photometric="rgb")
    assert off(decode_photo(data), random_pixels(16, 16)) == 0
    error = refused_at_once(retagged(data, {322: 40_000, 323: 40_000}))
    assert str(error).startswith("It has 40000 x 40000 pixels")


def test_huge_frame_of_a_small_gif_is_refused():
    data = encoded(blocks(), "GIF")
    at = data.index(b",")
    # Its disposal would be painted while the header is read.
    control = b"\x21\xf9\x04\x08\0\0\0\0"
    bomb = data[:at] + control + data[at : at + 5] + struct.pack("<HH", 60_000, 60_000) + data[at + 9 :]
    assert refused_at_once(bomb).reason == "too_large"


def test_pixels_beyond_the_size_in_the_header_are_ignored():
    data = png(8, 8, 8, 2, bytes(100 << 20))
    with little_memory():
        assert decode(data).width == 8


def test_memory_bound_of_these_tests_holds():
    data = png(8000, 8000, 8, 0, bytes(8001 * 8000))
    with little_memory():
        assert str(refused(data)) == "It does not fit in memory."


def test_picture_of_the_largest_allowed_size_is_not_refused():
    decode(encoded(blocks()), 48 * 72)
    with pytest.raises(DecodeError, match=r"^It has 72 x 48 pixels; 3455 are allowed \(max_pixels\)\.$") as error:
        decode(encoded(blocks()), 48 * 72 - 1)
    assert error.value.reason == "too_large"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 3), (3, 20_000), (20_000, 3)])
def test_smallest_and_longest_pictures_are_decoded(height, width):
    picture = decode(encoded(np.full((height, width, 3), 77, np.uint8)))
    assert (picture.width, picture.height) == (width, height)
    assert np.abs(picture.pixels - 77).max() < 1e-3


def test_limit_of_pillow_is_neither_used_nor_changed(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    decode(encoded(blocks()))
    assert Image.MAX_IMAGE_PIXELS == 100


def test_turn_ends_when_decoding_fails():
    held, begun = 0, 0

    class Turns:
        @contextmanager
        def hold(self, pixels: int) -> Iterator[None]:
            nonlocal held, begun
            assert pixels == 48 * 72
            held, begun = held + 1, begun + 1
            try:
                yield
            finally:
                held -= 1

    for data in (encoded(blocks())[:200], b"", encoded(blocks())):
        with suppress(DecodeError):
            decode(data, turns=Turns())
        assert held == 0
    assert begun == 2  # an empty file has no header


def distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def test_perceptual_hash_survives_resizing_and_recompression():
    for seed in range(5):
        drawn = Image.fromarray(draw_flower("roses", np.random.default_rng(seed)))
        copy = drawn.resize((drawn.width * 2 // 3, drawn.height * 2 // 3), Image.Resampling.LANCZOS)
        one, other = decode(encoded(drawn)).phash, decode(encoded(copy, "JPEG", quality=40)).phash
        assert distance(one, other) <= 10


def test_perceptual_hash_ignores_fine_noise():
    drawn = draw_flower("roses", np.random.default_rng(0)).repeat(2, 0).repeat(2, 1)
    noisy = drawn.astype(int) + np.random.default_rng(1).integers(-90, 91, drawn.shape)
    assert distance(perceptual_hash(drawn), perceptual_hash(noisy.clip(0, 255).astype(np.uint8))) <= 6


def test_perceptual_hash_sets_half_of_its_bits():
    for seed in range(3):
        assert perceptual_hash(draw_flower("tulips", np.random.default_rng(seed))).bit_count() == 32


def test_heic_and_avif_are_decoded_without_other_imports(tmp_path):
    """Other libraries register formats with Pillow when they are imported."""
    script = (
        "import sys; from flowers_batch.decoding.decode import decode; "
        "print(decode(open(sys.argv[1], 'rb').read()).width)"
    )
    for kind in ("HEIF", "AVIF"):
        (tmp_path / kind).write_bytes(encoded(blocks(), kind))
        command = [sys.executable, "-c", script, str(tmp_path / kind)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "72\n"


def test_perceptual_hash_differs_between_pictures():
    kinds = ("daisy", "sunflowers", "tulips", "roses", "dandelion")
    hashes = [perceptual_hash(draw_flower(kind, np.random.default_rng(seed))) for seed, kind in enumerate(kinds)]
    assert all(distance(one, other) > 15 for one in hashes for other in hashes if one is not other)
    assert all(0 <= one < 2**64 for one in hashes)


@pytest.mark.parametrize("stops", [[1, 2, 3], [150], [149, 148, 500, 2]])
def test_perceptual_hash_does_not_depend_on_how_rows_are_read(stops):
    photo = random_pixels(301, 257)
    phash = PerceptualHash(photo)
    for stop in stops:
        phash.read(stop)
    assert phash.value() == perceptual_hash(photo)


@pytest.mark.parametrize("orientation", UNDO)
@pytest.mark.parametrize(("height", "width"), [(90, 61), (129, 301), (301, 224), (451, 300), (803, 900), (901, 800)])
def test_pixels_and_hash_are_those_of_the_upright_photo(orientation, height, width):
    upright = Image.fromarray(random_pixels(height, width))
    taken = upright if UNDO[orientation] is None else upright.transpose(UNDO[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(encoded(taken, exif=exif.tobytes(), compress_level=1))
    expected = decode(encoded(upright, compress_level=1))
    assert (picture.width, picture.height) == (width, height)
    assert picture.phash == expected.phash
    assert np.abs(picture.pixels - expected.pixels).max() < 1e-3
