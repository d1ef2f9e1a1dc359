"""Photos of a camera's size in each format on one core: photos per second, and where the time goes.

Photos of FLOWERS_BATCH_CAMERA_PHOTOS (or enlarged ones) are written in every format about as cameras, telephones and
programs write them. Times are those of the processor, so that other work on the machine counts little, and the least of
the rounds.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flowers_batch.config import EXACT, FAST
from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.formats import first_frame, open_image
from flowers_batch.decoding.perceptual_hash import perceptual_hash
from flowers_batch.decoding.resizing import resize
from flowers_batch.decoding.sandbox import prepare_libraries

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from raw_files import dng

PHOTOS, ROUNDS = 3, 3
SCALED = ("JPEG, ", "DNG, full", "DNG, preview")  # what the mode `fast` decodes to a fraction of its size
STAGES = ("file to pixels", "pixels to RGB", "perceptual hash", "resizing")

Encode = Callable[[Image.Image], bytes]


def by_pillow(kind: str, **options: object) -> Encode:
    """Return a function that writes a photo with Pillow."""

    def encode(photo: Image.Image) -> bytes:
        buffer = io.BytesIO()
        photo.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


def raw(preview_width: int | None) -> Encode:
    """Return a function that writes a DNG with a preview of that width, or without one."""

    def encode(photo: Image.Image) -> bytes:
        if preview_width is None:
            return dng(np.asarray(photo), None)
        small = photo.resize((preview_width, preview_width * photo.height // photo.width))
        return dng(np.asarray(photo), by_pillow("JPEG", quality=90)(small))

    return encode


def jpeg_xl(photo: Image.Image) -> bytes:
    """Write a photo as JPEG XL, visually lossless and quickly."""
    return imagecodecs.jpegxl_encode(np.asarray(photo), distance=1.0, effort=4)


FORMATS: dict[str, Encode] = {
    "JPEG, baseline": by_pillow("JPEG", quality=92),
    "JPEG, progressive": by_pillow("JPEG", quality=92, progressive=True),
    "HEIC": by_pillow("HEIF", quality=70),
    "AVIF": by_pillow("AVIF", quality=75, speed=8),
    "WebP": by_pillow("WEBP", quality=80, method=2),
    "PNG": by_pillow("PNG", compress_level=3),
    "TIFF": by_pillow("TIFF"),
    "TIFF, LZW": by_pillow("TIFF", compression="tiff_lzw"),
    "DNG, full preview": raw(common.CAMERA_SIZE[0]),
    "DNG, preview of 1620": raw(1620),
    "DNG, developed": raw(None),
    "JPEG 2000": by_pillow("JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[12]),
    "JPEG 2000, lossless": by_pillow("JPEG2000"),
    "JPEG XL": jpeg_xl,
}


def seconds_by_stage(data: bytes) -> dict[str, float]:
    """Decode a file as `decode` does, and return the processor's seconds of each stage."""
    marks = [time.process_time()]

    def mark() -> None:
        marks.append(time.process_time())

    opened = open_image(data, 10**9)
    if opened.image.format == "JPEG":  # which is decoded as RGB
        pixels, _ = first_frame(opened)
        mark()
    else:
        opened.image.load()
        mark()
        pixels, _ = first_frame(opened)
    mark()
    perceptual_hash(pixels)
    mark()
    resize(_square(pixels))
    mark()
    return dict(zip(STAGES, np.diff(marks).tolist(), strict=True))


def _square(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return photo[top : top + side, left : left + side]


def rate(files: list[bytes], mode: str) -> float:
    """Return how many files are decoded per second of the processor."""
    total = 0.0
    for data in files:
        rounds = []
        for _ in range(ROUNDS):
            start = time.process_time()
            decode(data, mode=mode)
            rounds.append(time.process_time() - start)
        total += min(rounds)
    return round(len(files) / total, 1)


def row(name: str, files: list[bytes]) -> dict[str, object]:
    """Measure a format, and return its row of the table."""
    stages = dict.fromkeys(STAGES, 0.0)
    for data in files:
        found = [seconds_by_stage(data) for _ in range(ROUNDS)]
        for stage in STAGES:
            stages[stage] += min(seconds[stage] for seconds in found)
    megabytes = round(float(np.mean([len(data) for data in files])) / 1e6, 1)
    rates = {"photos/s": rate(files, EXACT), "fast": rate(files, FAST) if name.startswith(SCALED) else ""}
    return (
        {"format": name, "MB": megabytes}
        | rates
        | {stage: f"{seconds / sum(stages.values()):.0%}" for stage, seconds in stages.items()}
    )


def rates_of_raw_and_preview(photo: Image.Image) -> tuple[list[float], list[float]]:
    """Return the rates of both in alternating rounds."""
    preview = FORMATS["JPEG, baseline"](photo)
    files = dng(np.asarray(photo), preview), preview
    rounds = [[rate([data], EXACT) for data in files] for _ in range(ROUNDS)]
    ours, peers = zip(*rounds, strict=True)
    return list(ours), list(peers)


def find(scratch: Path) -> list[Image.Image]:
    """Return photos of a camera's size."""
    folder = os.environ.get(common.CAMERA_VARIABLE)
    paths = common.find_photos(folder, scratch)[:PHOTOS]
    if folder is None:
        return [Image.open(io.BytesIO(common.enlarge(path, *common.CAMERA_SIZE))) for path in paths]
    return [Image.open(path).convert("RGB").resize(common.CAMERA_SIZE, Image.Resampling.LANCZOS) for path in paths]


def main() -> None:
    """Measure all formats."""
    common.parse_arguments(__doc__)
    prepare_libraries()
    with tempfile.TemporaryDirectory() as scratch:
        photos = find(Path(scratch))
    table = []
    for name, encode in FORMATS.items():
        table.append(row(name, [encode(photo) for photo in photos]))
        print(table[-1], file=sys.stderr, flush=True)
    size = "{}x{}, one core".format(*common.CAMERA_SIZE)
    claim = f"a RAW file by its preview over that preview as a JPEG, {size}"
    common.report(
        "camera_formats",
        [common.ratio_claim(claim, *rates_of_raw_and_preview(photos[0]), 0.85)],
        {size: table},
    )


if __name__ == "__main__":
    main()
