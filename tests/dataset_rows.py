"""Rows of shards, and finished runs' folders, for tests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from helpers import fingerprint
from run_folders import write_run

from flowers_batch.dataset.job import Job
from flowers_batch.dataset.schema import (
    FAILED,
    OK,
    PIXELS,
    PIXELS_BYTES,
    codes_schema,
    folder_of,
    pixels_schema,
    predictions_schema,
)
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.fingerprint import pixels_fingerprint
from flowers_batch.storage.opening import open_folder

IMAGE_FIELDS = [
    pa.field("path", pa.string(), False),
    pa.field("folder", pa.string(), True),
    pa.field("sha256", pa.binary(32), True),
    pa.field("phash", pa.uint64(), True),
    pa.field("bytes", pa.int64(), True),
    pa.field("width", pa.int32(), True),
    pa.field("height", pa.int32(), True),
    pa.field("status", pa.string(), False),
    pa.field("reason", pa.string(), True),
    pa.field("message", pa.string(), True),
]


LIKE = Footer("print", 3, "inputs", 0, 0)


def shard_like(images: int, number: int = LIKE.shard) -> Shard:
    """Return the shard whose file was written like `LIKE`."""
    return Shard(number, images, LIKE.inputs_digest)


SIZES = {"bytes": 2**40, "width": 40_000, "height": 3}


def image_row(path: str, reason: str | None = None) -> dict:
    row = {"path": path, "folder": folder_of(path), "status": FAILED if reason else OK, "reason": reason}
    if reason:
        return row | {"message": f"It is {reason}.", "sha256": None, "phash": None} | dict.fromkeys(SIZES)
    return row | {"message": None, "sha256": hashlib.sha256(path.encode()).digest(), "phash": 2**64 - 1} | SIZES


def codes_batch(count: int, width: int = 8, kind: str = "float16", failed: tuple[int, ...] = ()) -> pa.RecordBatch:
    codes = np.random.default_rng(0).gamma(1, 3, (count, width)).astype(kind)
    rows = [
        image_row(f"a/{n}.jpg", "missing" if n in failed else None) | {"code": None if n in failed else codes[n]}
        for n in range(count)
    ]
    return pa.RecordBatch.from_pylist(rows, codes_schema(width, kind))


def pixels_batch(count: int, failed: tuple[int, ...] = (), thumbnail: bytes | None = None) -> pa.RecordBatch:
    """Return rows of pixels, all of which have the number of their row as their value."""
    schema, rows = pixels_schema(has_thumbnails=thumbnail is not None), []
    for number in range(count):
        pixels, reason = (None, "missing") if number in failed else (bytes([number]) * PIXELS_BYTES, None)
        picture = {"pixels": pixels, "thumbnail": thumbnail if pixels else None}
        rows.append(image_row(f"a/{number}.jpg", reason) | picture)
    return pa.RecordBatch.from_pylist(rows, schema)


def predictions_batch(rows: list[dict]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, predictions_schema())


def labelled(path: str, label: str = "roses", probability: float = 0.75) -> dict:
    return image_row(path) | {
        "prediction": label,
        "probability": probability,
        "top_labels": [label, "other"],
        "top_probabilities": [probability, 1 - probability],
        "is_unknown": False,
    }


def finished(where: Path, kind: str, shards: list[pa.RecordBatch]) -> Path:
    made = pixels_fingerprint("exact") if kind == PIXELS else fingerprint()
    job = Job(kind, "/photos", made, "random:0")
    write_run(open_folder(where), job, [[batch] for batch in shards])
    return where
