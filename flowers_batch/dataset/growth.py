"""Writing the manifest, and merging a new listing of the archive into it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowers_batch.dataset.format_version import with_format
from flowers_batch.dataset.listing import listing_of, no_images
from flowers_batch.dataset.listing_differences import NEW, find_differences, new_rows, repeat_number
from flowers_batch.dataset.manifest import (
    Manifest,
    put_shard,
    read_rows,
    rows_in_path_order,
)
from flowers_batch.dataset.manifest_part import (
    MANIFEST_SCHEMA,
    MISSING,
    PART_KEY,
    delete_parts_from,
    part_name,
    read_part,
)
from flowers_batch.dataset.manifest_rows import apply_delta, inputs_digest_of, path_key
from flowers_batch.dataset.run_folder import SUCCESS
from flowers_batch.dataset.shard import Shard, shard_to_json
from flowers_batch.errors import InputError
from flowers_batch.sources.ordering import batches_in_order
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.io_errors import passing_errors

_SHARDS_PER_PART = 256
CHANGES = ("new", "changed", "missing", "returned", "pruned", "retried")
_REPETITIVE = ["shard", "source", "attempt", "action"]


@dataclass(frozen=True)
class _Piece:
    """Rows of one shard in a generation, and the shard after them."""

    shard: Shard
    rows: pa.Table


def write_manifest(
    folder: Folder, source: Source, shard_size: int, run: str, *, shards_per_part: int = _SHARDS_PER_PART
) -> Manifest:
    """Cut images into shards and publish the manifest, part by part; memory grows with shards, not images.

    Args:
        folder: The run's folder.
        source: Lists the images.
        shard_size: Images in a shard.
        run: The run's id, which each part carries.
        shards_per_part: Shards in a part of the manifest.

    Raises:
        InputError: There are no images, or another run writes to the folder.
    """
    nothing = Manifest([], listing_of(source), (), (), 0, source.in_path_order)
    pieces = cut_into_shards(map(new_rows, source.batches()), shard_size, 0)
    manifest = _publish(folder, nothing, pieces, source, run, shards_per_part)
    if not manifest.shards:
        raise no_images(source)
    return manifest


def grow_manifest(
    folder: Folder,
    manifest: Manifest,
    source: Source,
    shard_size: int,
    run: str,
    *,
    prune: bool = False,
    retry: bool = False,
    failed: Callable[[Shard], Set[str]] = lambda shard: frozenset(),
    shards_per_part: int = _SHARDS_PER_PART,
) -> tuple[Manifest, dict[str, int]]:
    """Merge a new listing with the manifest; if they differ, delete `_SUCCESS` and publish a new generation.

    New images are cut into new shards; all others keep theirs. Memory grows with shards, not images.

    Args:
        folder: The run's folder.
        manifest: The current one.
        source: Lists the images.
        shard_size: Images in a new shard.
        run: The run's id, which each part carries.
        prune: Whether missing images are removed, instead of being marked.
        retry: Whether failed images are retried; failed images that were missing and are back are retried in any case.
        failed: Returns which paths of a shard failed for a transient reason.
        shards_per_part: Shards in a part of the manifest.

    Returns:
        The manifest, and how many images are `new`, `changed`, `missing`, `returned`, `pruned` or `retried`.

    Raises:
        InputError: There are no images, it is another archive than the one that the manifest names, or
            another run writes to the folder.
    """
    counts: Counter[str] = Counter()
    after = source.batches()
    if not source.in_path_order:
        after = batches_in_order(after, path_key)
    before = rows_in_path_order(
        folder, manifest, lambda shard: failed(shard) if retry or shard.missing else frozenset()
    )
    differences = batches_in_order(find_differences(before, after, prune, retry, counts), _place_key)
    pieces: Iterator[_Piece] = itertools.chain.from_iterable(
        cut_into_shards(rows, shard_size, len(manifest.shards))
        if number == NEW
        else [change_shard(folder, manifest.shards[number], pa.Table.from_batches(rows))]
        for number, rows in _by_shard(differences)
    )
    needs_known_images = bool(manifest.images) and (prune or listing_of(source).source != manifest.listing.source)
    pieces = _checked(pieces, counts, needs_known_images, source, manifest)
    manifest = _publish(folder, manifest, pieces, source, run, shards_per_part)
    return manifest, {name: counts[name] for name in CHANGES}


def _checked(
    pieces: Iterator[_Piece], counts: Counter[str], needs_known_images: bool, source: Source, manifest: Manifest
) -> Iterator[_Piece]:
    """Refuse a listing that is empty or of another archive, before its first piece is published."""
    first = next(pieces, None)
    if not counts["listed"]:
        raise no_images(source)
    if needs_known_images and not counts["known"]:
        raise InputError(
            f"None of the images in {source.url} is one of those that the folder was made from, in "
            f"{manifest.listing.source}: choose another folder for them."
        )
    return itertools.chain([first], pieces) if first else iter(())


def _by_shard(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, Iterator[pa.RecordBatch]]]:
    """Group consecutive rows by their shards."""

    def pieces() -> Iterator[tuple[int, pa.RecordBatch]]:
        for batch in batches:
            numbers = batch["shard"].to_numpy()
            for start, stop in itertools.pairwise([0, *np.flatnonzero(np.diff(numbers)) + 1, len(batch)]):
                yield int(numbers[start]), batch.slice(start, stop - start)

    for number, group in itertools.groupby(pieces(), itemgetter(0)):
        yield number, (rows for _, rows in group)


def cut_into_shards(batches: Iterable[pa.RecordBatch], size: int, first: int) -> Iterator[_Piece]:
    """Cut rows into new shards, the first of which has the number `first`."""
    for number, pieces in enumerate(_in_chunks(batches, size), first):
        rows = pa.Table.from_batches(pieces)
        rows = rows.set_column(0, MANIFEST_SCHEMA.field("shard"), repeat_number(number, len(rows)))
        yield _Piece(shard_of(number, rows), rows)


def _in_chunks(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[list[pa.RecordBatch]]:
    """Yield lists of slices with `size` rows in all; the last one has the rest."""
    pieces: list[pa.RecordBatch] = []
    missing = size
    for batch in batches:
        while len(batch) >= missing:
            yield [*pieces, batch.slice(0, missing)]
            batch, pieces, missing = batch.slice(missing), [], size
        if len(batch):
            pieces.append(batch)
            missing -= len(batch)
    if pieces:
        yield pieces


def change_shard(folder: Folder, shard: Shard, rows: pa.Table) -> _Piece:
    """Return rows of a new generation, and their shard after them."""
    return _Piece(shard_of(shard.number, apply_delta(read_rows(folder, shard), rows)), rows)


def _publish(
    folder: Folder, manifest: Manifest, pieces: Iterator[_Piece], source: Source, run: str, shards_per_part: int
) -> Manifest:
    """Publish a generation, part by part, unless it is empty; return the manifest after it."""
    shards = list(manifest.shards)
    part = manifest.parts
    runs = (*manifest.runs, run)
    piece = next(pieces, None)
    following = passing_errors(pieces)
    if piece is None:
        delete_parts_from(folder, part)
        return replace(manifest, listing=listing_of(source), is_complete=True)
    folder.delete(SUCCESS)
    while piece is not None:
        with (
            folder.publish(part_name(part)) as scratch,
            pq.ParquetWriter(
                scratch, MANIFEST_SCHEMA, compression="zstd", use_dictionary=_REPETITIVE, write_page_checksum=True
            ) as writer,
        ):
            written: list[Shard] = []
            while piece is not None and len(written) < shards_per_part:
                writer.write_table(piece.rows, row_group_size=len(piece.rows))
                put_shard(shards, piece.shard, (part, len(written)))
                written.append(piece.shard)
                piece = next(following, None)
            content: dict[str, Any] = {"runs": runs, "last": piece is None}
            content |= listing_of(source).to_json() | {"in_path_order": source.in_path_order}
            content |= {"shards": [shard_to_json(shard) for shard in written]}
            writer.add_key_value_metadata({PART_KEY: json.dumps(with_format(content)).encode()})
        part += 1
    delete_parts_from(folder, part)
    for number in range(manifest.parts, part):
        found = read_part(folder, number)
        if found is None or found["runs"][-1] != run:
            raise InputError(
                f"{folder.url} is being written by another run: wait until it ends, or choose another folder."
            )
    return replace(
        manifest,
        shards=shards,
        listing=listing_of(source),
        runs=runs,
        first_shards=(*manifest.first_shards, len(manifest.shards)),
        parts=part,
        in_path_order=manifest.in_path_order and source.in_path_order,
        is_complete=True,
    )


def shard_of(number: int, rows: pa.Table) -> Shard:
    """Return the shard of these rows, without their locations."""
    return Shard(number, len(rows), inputs_digest_of(rows), pc.sum(pc.equal(rows["action"], MISSING)).as_py() or 0)


def _place_key(rows: pa.RecordBatch) -> list[pa.Array]:
    """Return the columns to sort by: the shard, then the order in which a tar or table is read fastest."""
    return [rows["shard"], rows["source"].fill_null(""), rows["offset"].fill_null(0), *path_key(rows)]
