"""Rows of the manifest: those of a shard after each generation, and the digest of what a shard is made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.dataset.manifest_part import REMOVE, read_row_group
from flowers_batch.dataset.shard import Shard
from flowers_batch.sources.images import IMAGES, paths_bytes
from flowers_batch.storage.folder import Folder

_INPUTS = (*IMAGES.names, "attempt")  # what a shard's file is made from


def shard_states(folder: Folder, shard: Shard) -> Iterator[pa.Table]:
    """Yield a shard's manifest rows after each generation that touched it."""
    rows = None
    for part, row_group in shard.locations:
        delta = read_row_group(folder, part, row_group)
        rows = delta if rows is None else apply_delta(rows, delta)
        yield rows


def apply_delta(rows: pa.Table, delta: pa.Table) -> pa.Table:
    """Return rows of a shard after a later generation: changed in place, or removed."""
    later = pc.index_in(rows["path"], delta["path"])
    now = pc.coalesce(pc.add(later, len(rows)), pa.array(np.arange(len(rows))))
    rows = pa.concat_tables([rows, delta]).take(now)
    return rows.filter(pc.not_equal(rows["action"], REMOVE))


def input_columns(rows: pa.Table) -> list[list[str | None]]:
    """Return the columns of manifest rows that a shard's file is made from, as text; paths come first."""
    return [rows[name].cast(pa.string()).to_pylist() for name in _INPUTS]


def inputs_digest_of(rows: pa.Table) -> str:
    """Return SHA-256 of the columns that a shard's file is made from; chunks of the table do not matter.

    Hashed are the number of rows, then of each column of `_INPUTS`, in that order: a byte for each row, 1 where it
    has a value; of text, the length of each value in bytes, then all values one after the other, in UTF-8; of any
    other column, each value (of times, the microseconds since 1970). Numbers are int64, little-endian; where there
    is no value, the length or the number is 0.
    """
    digest = hashlib.sha256(np.int64(len(rows)).astype("<i8").tobytes())
    for name in _INPUTS:
        column = rows[name].combine_chunks()
        digest.update(column.is_valid().cast(pa.uint8()).to_numpy())
        if pa.types.is_string(column.type):
            values = column.fill_null("")
            digest.update(pc.binary_length(values).to_numpy().astype("<i8"))
            digest.update(pc.binary_join(pa.ListArray.from_arrays([0, len(values)], values), "")[0].as_buffer())
        else:
            digest.update(column.cast(pa.int64()).fill_null(0).to_numpy().astype("<i8"))
    return digest.hexdigest()


def path_key(rows: pa.RecordBatch) -> list[pa.Array]:
    """Return the columns by which rows are sorted in the order of their paths' bytes."""
    return [paths_bytes(rows["path"])]
