"""Every format is decoded inside the workers' sandbox, by its content whatever its name; damage gives rows alone."""

from __future__ import annotations

import random
from collections import Counter

import imagecodecs
import numpy as np
import pytest
from decode_pools import SECONDS, Photos, open_pool
from helpers import encoded, random_pixels
from image_files import FORMATS, blocks
from raw_files import dng

REASONS = {"not_an_image", "truncated", "too_large", "unsupported"}


def files() -> dict[str, bytes]:
    """Files by names that fit none of them."""
    return {
        "heic.jpg": encoded(blocks(), "HEIF"),
        "jpeg.cr2": encoded(blocks(), "JPEG"),
        "raw.tif": dng(blocks(480, 720), encoded(blocks(240, 360), "JPEG")),
        "raw-without-preview.jpg": dng(blocks(480, 720), None, 6),
        "jp2.png": encoded(blocks(), "JPEG2000"),
        "jxl.nef": imagecodecs.jpegxl_encode(blocks(), lossless=True),
        "tiff.dng": encoded(blocks(), "TIFF"),
    }


def test_content_counts_and_not_the_name(tmp_path):
    with open_pool(tmp_path) as pool:
        rows = Photos(tmp_path, pool).submit(files()).result(SECONDS).rows.to_pylist()
    assert [row["message"] for row in rows] == [None] * len(rows)
    sizes = {name: (row["width"], row["height"]) for name, row in zip(files(), rows, strict=True)}
    assert sizes.pop("raw.tif") == (720, 480) and sizes.pop("raw-without-preview.jpg") == (480, 720)
    assert set(sizes.values()) == {(72, 48)}


def originals() -> dict[str, bytes]:
    noise = random_pixels(60, 90)
    deep = noise.astype(np.uint16) * 257
    photo, preview = blocks(480, 640), encoded(blocks(240, 320), "JPEG")
    return {
        "JP2": encoded(noise, "JPEG2000"),
        "JP2 of tiles": encoded(noise, "JPEG2000", tile_size=(32, 32), irreversible=True),
        "J2K": encoded(noise[:, :, 0], "JPEG2000", no_jp2=True),
        "JXL": imagecodecs.jpegxl_encode(noise, usecontainer=True),
        "JXL of 16 bits": imagecodecs.jpegxl_encode(deep, lossless=True),
        "JXL animation": imagecodecs.jpegxl_encode(np.stack([noise, noise]), lossless=True),
        "JXL of a JPEG": imagecodecs.jpegxl_encode_jpeg(encoded(noise, "JPEG"), usecontainer=True),
        "DNG": dng(photo, preview, 6),
        "DNG, sensor first": dng(photo, preview, in_first=True),
        "DNG without preview": dng(photo, None),
        "HEIF": encoded(noise, "HEIF", **FORMATS["HEIF"][0]),
    }


def damaged(data: bytes, draw: random.Random) -> bytes:
    """A file that is cut, or has other bytes in some places, most of them near its beginning."""
    changed = bytearray(data)
    for _ in range(draw.choice((0, 1, 1, 2, 5, 30))):
        at = draw.randrange(draw.choice((len(changed), 100, 600, 5000)))
        new = draw.choice((b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff" * 4, draw.randbytes(1), draw.randbytes(4)))
        changed[at : at + len(new)] = new
    if draw.random() < 0.2:
        del changed[draw.randrange(len(changed)) :]
    return bytes(changed)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", originals())
def test_thousands_of_damaged_files_give_rows_alone(tmp_path, kind):
    """No fault of our own, and no crash of a library that it has again when it tries alone; a timeout is a row, too."""
    draw, data, reasons = random.Random(1), originals()[kind], Counter()
    with open_pool(tmp_path) as pool:
        photos = Photos(tmp_path, pool)
        for group in range(100):
            files = {f"{group}-{place}": damaged(data, draw) for place in range(32)}
            rows = photos.submit(files).result(10 * SECONDS).rows.to_pylist()
            assert len(rows) == len(files)
            reasons.update(row["reason"] for row in rows)
            for name in files:
                (tmp_path / name).unlink()
    print(kind, dict(reasons))
    assert set(reasons) - {None, "timeout", "crashed_decoder"} <= REASONS
