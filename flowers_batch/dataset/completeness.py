"""Which shards are complete, and which rows of a changed shard's file can be reused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.dataset.manifest import Manifest
from flowers_batch.dataset.manifest_rows import input_columns, inputs_digest_of, shard_states
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer, read_footer
from flowers_batch.dataset.shard_reading import read_shard, shard_described_by
from flowers_batch.errors import InputError
from flowers_batch.storage.folder import Folder

_FOOTERS_AT_ONCE = 32  # reading footers is mostly waiting


def completed(folder: Folder, kind: str, manifest: Manifest, fingerprint: str) -> dict[int, Footer]:
    """Return the footers of all complete shards: those that match the fingerprint and the manifest."""

    def footer(shard: Shard) -> Footer | None:
        found = read_footer(folder, kind, shard.number)
        expected = (fingerprint, shard.number, shard.inputs_digest, shard.images)
        if found and (found.fingerprint, found.shard, found.inputs_digest, found.ok + found.failed) == expected:
            return found
        return None

    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        found = pool.map(footer, manifest.shards)
        return {shard.number: footer for shard, footer in zip(manifest.shards, found, strict=True) if footer}


def reusable_rows(
    folder: Folder, kind: str, shard: Shard, schema: pa.Schema, fingerprint: str
) -> tuple[pa.Array, Iterator[pa.RecordBatch]]:
    """Return the rows of a changed shard's file that are still valid; none if there is no such file.

    A row is valid if the manifest has the same row for its image as when the file was written: the footer shows
    by its `inputs_digest` which of the shard's former states that was.

    Returns:
        The rows' paths, and the rows in the manifest's order, a row group in memory at a time.
    """
    none = pa.array([], pa.string()), iter(())
    footer = read_footer(folder, kind, shard.number)
    if footer is None or (footer.fingerprint, footer.shard) != (fingerprint, shard.number):
        return none
    if footer.inputs_digest == shard.inputs_digest:  # requested again although nothing changed
        return none
    *former, now = shard_states(folder, shard)
    then = next((state for state in reversed(former) if inputs_digest_of(state) == footer.inputs_digest), None)
    if then is None:
        return none
    same = set(zip(*input_columns(then), strict=True)) & set(zip(*input_columns(now), strict=True))
    paths = pa.array([row[0] for row in same], pa.string())

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in read_shard(folder, kind, shard_described_by(footer), fingerprint, schema.names):
            yield batch.filter(pc.is_in(batch["path"], paths))

    try:
        found = sum(map(len, rows()))  # read once in advance, since a damaged file is written from scratch
    except InputError:
        return none
    return (paths, rows()) if found == len(paths) else none
