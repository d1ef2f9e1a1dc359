"""Codes folders written without a network or Ray, for tests of their readers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from run_folders import write_run

from flowers_batch.dataset.job import Job
from flowers_batch.dataset.schema import CODES, IMAGE_COLUMNS, codes_schema
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.storage.opening import open_folder

WIDTH = 12


def write_codes(
    folder: Path,
    labels: list[str | None],
    failed: int = 0,
    seed: int = 0,
    copies: int = 0,
    spread: float = 1.0,
    batch: int | None = None,
    broken: tuple[int, ...] = (),
    width: int = WIDTH,
) -> Path:
    """Write a finished codes folder, in which codes of a class are normally distributed around a random centre.

    Args:
        folder: Where to.
        labels: Each photo's folder.
        failed: How many of the last photos failed.
        seed: Decides on the codes.
        copies: How many of the first photos have two copies: one of equal bytes, and one with a similar hash.
        spread: Standard deviation of codes; that of the centres is 2.
        batch: Rows in a row group, at most.
        broken: Other photos that failed.
        width: Of the codes.
    """
    random = np.random.default_rng(seed)
    centres = {label: random.normal(0, 2, width) for label in dict.fromkeys(labels)}
    codes = np.stack([random.normal(centres[label], spread) for label in labels]).astype(np.float16)
    hashes = random.integers(0, 2**64, len(labels), np.uint64)
    digests = [hashlib.sha256(b"%d" % number).digest() for number in range(len(labels))]
    labels = labels + labels[:copies] * 2
    codes = np.concatenate([codes, codes[:copies], codes[:copies]])
    hashes = np.concatenate([hashes, hashes[:copies], hashes[:copies] ^ np.uint64(0b1010101)])
    digests += digests[:copies] + [hashlib.sha256(b"edited %d" % number).digest() for number in range(copies)]
    ok = np.arange(len(labels)) < len(labels) - failed
    ok[list(broken)] = False
    schema = codes_schema(width, "float16")
    columns = {name: [None] * len(labels) for name in IMAGE_COLUMNS}
    columns |= {
        "path": [f"{label or ''}/{number:03d}.jpg".lstrip("/") for number, label in enumerate(labels)],
        "folder": labels,
        "sha256": [digest if good else None for digest, good in zip(digests, ok, strict=True)],
        "phash": [number if good else None for number, good in zip(hashes.tolist(), ok, strict=True)],
        "status": ["ok" if good else "failed" for good in ok],
        "reason": [None if good else "truncated" for good in ok],
        "code": [code if good else None for code, good in zip(codes, ok, strict=True)],
    }
    table = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
    target = open_folder(folder)
    fingerprint = Fingerprint("null", "pixels", "null", "float32", "float16")
    counts = {"ok": int(ok.sum()), "failed": int((~ok).sum()), "duplicates": copies}
    write_run(target, Job(CODES, str(folder), fingerprint, "null"), [table.to_batches(batch)], **counts)
    return folder


def labels(**counts: int) -> list[str]:
    """Return each name as often as its count says."""
    return [name for name, count in counts.items() for _ in range(count)]
