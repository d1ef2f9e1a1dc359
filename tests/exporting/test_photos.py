"""Photos in a graph: their pixels and orientations are those of `decoding`."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest
from helpers import encoded
from image_files import blocks, off
from PIL import Image

from flowers_batch.decoding.decode_photo import decode_photo
from flowers_batch.decoding.metadata import strip_metadata

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'


@cache
def graphs():
    import tensorflow as tf

    from flowers_batch.exporting.photos import read_orientation, read_photo

    signature = [tf.TensorSpec((), tf.string)]
    return [tf.function(graph, signature, autograph=False) for graph in (read_photo, read_orientation)]


def orientation(data: bytes) -> int:
    return int(graphs()[1](data))


def tags(number: int = 6) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = "x" * 40
    exif[0x0112] = number
    return exif


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
        *(("PNG", mode) for mode in ("RGB", "L", "LA", "RGBA", "P", "1")),
        *(("WEBP", mode) for mode in ("RGB", "RGBA")),
        *(("BMP", mode) for mode in ("RGB", "L")),
        ("GIF", "P"),
    ],
)
def test_photo_in_a_graph_is_that_of_decoding(kind, mode):
    picture = Image.fromarray(blocks())
    if "A" in mode:
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    options = {"exif": tags().tobytes()} if kind in ("JPEG", "PNG", "WEBP") else {}
    if mode == "1":
        picture = picture.convert("L").point(lambda value: value > 100 and 255)
    data = encoded(picture.convert(mode), kind, **options)
    assert off(graphs()[0](data).numpy(), decode_photo(data)) <= (8 if mode == "CMYK" else 2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_in_a_graph_is_that_of_decoding(kind):
    draw = random.Random(2)
    for options in ({"exif": tags().tobytes()}, {"exif": tags(3).tobytes(), "xmp": XMP}, {"xmp": XMP}):
        if kind == "PNG":
            options.pop("xmp", None)
        if not options:
            continue
        data = encoded(blocks(), kind, **options)
        begin = data.index(b"MM\0*" if "exif" in options else b"<x:xmp")
        for _ in range(150):
            damaged = bytearray(data)
            for _ in range(draw.randint(0, 3)):
                damaged[draw.randrange(begin, begin + 60)] = draw.choice((0, 1, 255, draw.randrange(256)))
            expected = strip_metadata(bytes(damaged))[1]
            assert orientation(bytes(damaged)) == (expected if 1 <= expected <= 8 else 1)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"GIF89a", bytes(100)]
)
def test_other_bytes_have_no_orientation(data):
    for more in (b"", b"\xff", b"\xff\xe1", b"\xff\xe1\xff\xffExif\0\0MM\0*\xff\xff\xff\xff", b"\xff" * 50):
        assert orientation(data + more) == 1


def test_orientation_behind_thousands_of_segments_is_found():
    data = encoded(blocks(), "JPEG", exif=tags().tobytes())
    segment = b"\xff\xe2\0\x04!!"
    assert orientation(data[:2] + segment * 3000 + data[2:]) == 6


def test_orientation_of_every_number_turns_as_exif_says():
    for number in range(10):
        data = encoded(blocks(), "PNG", exif=tags(number).tobytes())
        assert np.array_equal(graphs()[0](data).numpy(), decode_photo(data))
