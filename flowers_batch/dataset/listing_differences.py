"""The differences between the manifest and a new listing of the archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.dataset.manifest import (
    KNOWN_SCHEMA,
)
from flowers_batch.dataset.manifest_part import (
    ADD,
    CHANGE,
    MANIFEST_SCHEMA,
    MISSING,
    REMOVE,
)
from flowers_batch.sources.images import IMAGES
from flowers_batch.sources.ordering import aligned

NEW = 2**31 - 1  # the shard of images that have none yet; it sorts behind all others


def find_differences(
    before: Iterator[pa.RecordBatch], after: Iterator[pa.RecordBatch], prune: bool, retry: bool, counts: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that turn the manifest into a new listing; both are in the order of paths' bytes.

    Besides the changes, `counts` gains how many images are `listed`, and how many of them were `known`.
    """
    for old, new in aligned([before, after], [KNOWN_SCHEMA, IMAGES]):
        found = new.take(pc.index_in(old["path"], new["path"]))  # rows of nulls if it is not listed
        # A name that no longer resolves, such as a link to a lost disk, counts as missing, too.
        known = _where(found["path"].is_valid()) & (_has_details(found) | ~_has_details(old))
        same, was_missing = _same(found, old), _where(pc.equal(old["action"], MISSING))
        retried = known & same & _where(old["failed"]) & (was_missing | retry)
        returned = known & same & was_missing & ~retried
        lost = ~known & (~was_missing | prune)
        unknown = ~_where(pc.is_in(new["path"], old["path"]))
        counts["known"] += _count(known)
        counts["listed"] += _count(known) + _count(unknown)
        for kind, action, chosen, images, attempt in (
            ("changed", CHANGE, known & ~same, found, repeat_number(0, len(old))),
            ("retried", CHANGE, retried, old, pc.add(old["attempt"], pa.scalar(1, pa.int32()))),
            ("returned", CHANGE, returned, old, old["attempt"]),
            ("pruned", REMOVE, lost & prune, old, old["attempt"]),
            ("missing", MISSING, lost & (not prune), old, old["attempt"]),
        ):
            if chosen.any():
                counts[kind] += _count(chosen)
                yield manifest_rows(images, old["shard"], attempt, action).filter(pa.array(chosen))
        if unknown.any():
            counts["new"] += _count(unknown)
            yield new_rows(new.filter(pa.array(unknown)))


def _where(condition: pa.Array) -> NDArray[np.bool_]:
    """Return where a condition holds: bool [rows]; false where it is null."""
    return condition.fill_null(False).to_numpy(zero_copy_only=False)


def _count(chosen: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(chosen))


def _same(rows: pa.RecordBatch, others: pa.RecordBatch) -> NDArray[np.bool_]:
    """Return where the images of two batches are the same, row by row: bool [rows]."""
    same = np.ones(len(rows), bool)
    for name in IMAGES.names:
        one, other = rows[name], others[name]
        same &= _where(pc.equal(one, other)) | _where(pc.and_(one.is_null(), other.is_null()))
    return same


def _has_details(rows: pa.RecordBatch) -> NDArray[np.bool_]:
    """Return where a listing gives more of an image than its name: bool [rows]."""
    has_time = pc.not_equal(rows["mtime"].cast(pa.int64()), 0)  # the epoch means none
    has_place = pc.or_(rows["source"].is_valid(), rows["offset"].is_valid())
    return _where(pc.not_equal(rows["bytes"], 0)) | _where(has_time) | _where(has_place)


def new_rows(images: pa.RecordBatch) -> pa.RecordBatch:
    """Return manifest rows of images that have no shard yet."""
    return manifest_rows(images, repeat_number(NEW, len(images)), repeat_number(0, len(images)), ADD)


def repeat_number(number: int, count: int) -> pa.Array:
    """Return a column of `count` times the same number: int32 [count]."""
    return pa.repeat(pa.scalar(number, pa.int32()), count)


def manifest_rows(images: pa.RecordBatch, shards: pa.Array, attempts: pa.Array, action: str) -> pa.RecordBatch:
    """Return manifest rows of images, with their shards, the numbers of their attempts, and one action."""
    columns = [shards, *(images[name] for name in IMAGES.names), attempts, pa.repeat(action, len(images))]
    return pa.RecordBatch.from_arrays(columns, schema=MANIFEST_SCHEMA)
