"""JPEG 2000 files: as other formats, and refused for what would make decoding take long."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from helpers import encoded, random_pixels
from image_files import blocks, box, little_memory, off
from PIL import Image

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.decode_photo import decode_photo
from flowers_batch.decoding.errors import DecodeError

KINDS = {"jp2": {}, "j2k": {"no_jp2": True}}
XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def jp2(picture: np.ndarray | Image.Image, **options) -> bytes:
    return encoded(picture, "JPEG2000", **options)


def refused(data: bytes, max_pixels: int = 10**8) -> DecodeError:
    with pytest.raises(DecodeError) as error:
        decode(data, max_pixels)
    return error.value


def siz(data: bytes, place: int, *numbers: int) -> bytes:
    """A file with other numbers in the codestream's header: from its width on, of four bytes each."""
    at = data.index(b"\xff\x4f\xff\x51") + 8 + 4 * place
    return data[:at] + struct.pack(f">{len(numbers)}I", *numbers) + data[at + 4 * len(numbers) :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"tile_size": (16, 16)}, {"num_resolutions": 2}, {"progression": "RPCL"}])
def test_kinds_of_jpeg_2000_are_decoded(kind, options):
    assert off(decode_photo(jp2(blocks(), **KINDS[kind], **options)), blocks()) == 0


def test_lossy_jpeg_2000_is_decoded():
    data = jp2(blocks(), irreversible=True, quality_mode="dB", quality_layers=[60])
    assert off(decode_photo(data), blocks()) <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_grey_and_alpha_of_a_jpeg_2000(kind):
    grey, alpha = random_pixels(20, 30, channels=1), random_pixels(20, 30, seed=1, channels=1)
    assert off(decode_photo(jp2(grey, **KINDS[kind])), grey[:, :, None].repeat(3, 2)) == 0
    for colours in (grey[:, :, None], random_pixels(20, 30)):
        data = jp2(np.dstack([colours, alpha]), **KINDS[kind])
        expected = 255 - np.round((255 - colours.astype(float)) * alpha[:, :, None] / 255)
        assert off(decode_photo(data), np.broadcast_to(expected, (20, 30, 3)).astype(np.uint8)) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_jpeg_2000_of_16_bits_is_scaled(kind):
    deep = np.linspace(0, 65535, 20 * 30).round().astype(np.uint16).reshape(20, 30)
    expected = np.round(deep / 65535 * 255).astype(np.uint8)[:, :, None].repeat(3, 2)
    assert off(decode_photo(jp2(Image.fromarray(deep), **KINDS[kind])), expected) == 0


def with_palette(indices: np.ndarray, colours: np.ndarray, bits: int = 8) -> bytes:
    data = jp2(indices)
    at = data.index(b"jp2h") - 4
    end = at + struct.unpack_from(">I", data, at)[0]
    columns = colours.shape[1]
    palette = struct.pack(">HB", len(colours), columns) + bytes([bits - 1] * columns) + colours.tobytes()
    mapping = b"".join(struct.pack(">HBB", 0, 1, column) for column in range(columns))
    header = data[at + 8 : end].replace(struct.pack(">I", 17), struct.pack(">I", 16))  # sRGB, not grey
    boxes = box(b"pclr", palette) + box(b"cmap", mapping)
    return data[:at] + box(b"jp2h", header + boxes) + data[end:]


def test_palette_of_a_jpeg_2000_becomes_its_colours():
    colours, indices = np.unique(blocks().reshape(-1, 3), axis=0, return_inverse=True)
    indices = indices.reshape(48, 72).astype(np.uint8)
    assert off(decode_photo(with_palette(indices, colours)), blocks()) == 0
    clear = np.column_stack([colours, [0, 255, 255, 255, 255]]).astype(np.uint8)
    expected = np.where(indices[:, :, None] == 0, 255, blocks()).astype(np.uint8)
    assert off(decode_photo(with_palette(indices, clear)), expected) == 0
    padded = np.vstack([colours, *[colours[:1]] * 20])
    assert off(decode_photo(with_palette(indices, padded)), blocks()) == 0
    for data in (with_palette(indices, np.vstack([colours[:1], colours])), with_palette(indices, colours, 9)):
        assert refused(data).reason == "unsupported"


def test_orientation_in_metadata_of_a_jpeg_2000_counts():
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    data = jp2(blocks())
    for content in (b"JpgTiffExif->JP2" + exif.tobytes().removeprefix(b"Exif\0\0"), XMP + xmp):
        assert off(decode_photo(data[:12] + box(b"uuid", content) + data[12:]), np.rot90(blocks(), -1)) == 0
        assert off(decode_photo(data + box(b"uuid", content)), np.rot90(blocks(), -1)) == 0
    assert off(decode_photo(data + box(b"uuid", XMP + b"broken")), blocks()) == 0


def test_metadata_of_a_jpeg_2000_may_be_broken():
    data, at = jp2(blocks()), jp2(blocks()).index(b"ihdr") - 4
    header_at = data.index(b"jp2h") - 4
    size = struct.unpack_from(">I", data, header_at)[0]
    res = box(b"res ", b"\0\0\0\x04broken")
    larger = struct.pack(">I", size + len(res)) + data[header_at + 4 : at] + res + data[at:]
    assert off(decode_photo(data[:header_at] + larger), blocks()) == 0
    assert off(decode_photo(data[:12] + box(b"xml ", b"<broken") * 1000 + data[12:]), blocks()) == 0
    assert str(refused(data[:12] + b"\0\0\0\x08free" * 100_000 + data[12:])).startswith("It has more than 100000 boxes")


@pytest.mark.parametrize("kind", KINDS)
def test_size_of_the_codestream_counts(kind):
    data = siz(jp2(blocks(), **KINDS[kind]), 0, 50_000, 50_000)
    with little_memory():
        error = refused(siz(data, 4, 50_000, 50_000))
    assert str(error) == "It has 50000 x 50000 pixels; 100000000 are allowed (max_pixels)."
    assert decode(jp2(blocks(), **KINDS[kind]), 48 * 72).width == 72
    assert refused(jp2(blocks(), **KINDS[kind]), 48 * 72 - 1).reason == "too_large"


def test_jpeg_2000_of_far_too_many_parts_is_unsupported():
    data = jp2(random_pixels(300, 300), no_jp2=True)
    assert str(refused(siz(data, 4, 2, 2))).startswith("It has more than 16384 tiles")
    layers = data.index(b"\xff\x52") + 6
    assert "1000 layers" in str(refused(data[:layers] + b"\xff\xff" + data[layers + 2 :]))
    components = data[:40] + struct.pack(">H", 5) + data[42:]
    assert str(refused(components)).startswith("It has more than 4 components")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"tile_size": (32, 32)}], ids=["one tile", "tiles"])
def test_jpeg_2000_cut_anywhere_gives_no_picture(kind, options):
    data = jp2(random_pixels(40, 50), **KINDS[kind], **options)
    for length in range(20, len(data) - 2, 173):
        assert refused(data[:length]).reason == "truncated"
    assert decode(data[:-2]).width == 50  # without its end


def test_tile_parts_without_an_end_take_no_time():
    data = jp2(blocks(), no_jp2=True)
    at = data.index(b"\xff\x90")
    part = struct.pack(">HHHIBB", 0xFF90, 10, 0, 14, 0, 0) + b"\xff\x93"
    error = refused(data[:at] + part * 250_000 + data[at:])
    assert "200000 tile-parts" in str(error)
