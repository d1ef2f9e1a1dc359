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
from numpy.typing import NDArray

from flowers_batch.dataset.format_version import with_format
from flowers_batch.dataset.manifest import (
    _KNOWN,
    _PART_KEY,
    _SCHEMA,
    ADD,
    CHANGE,
    MISSING,
    REMOVE,
    Manifest,
    Shard,
    _applied,
    _delete_parts_behind,
    _inputs,
    _part_name,
    _path_key,
    _put,
    _read_part,
    describe_source,
    read_rows,
    rows_in_path_order,
    shard_to_json,
)
from flowers_batch.dataset.run_folder import SUCCESS
from flowers_batch.errors import InputError
from flowers_batch.sources.images import IMAGES, SUFFIXES
from flowers_batch.sources.ordering import aligned, batches_in_order
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import Folder

NEW = 2**31 - 1  # stands for the shard of an image that has none yet, and sorts behind all others
_SHARDS_A_PART = 256
CHANGES = ("new", "changed", "missing", "returned", "pruned", "retried")
_REPETITIVE = ["shard", "source", "attempt", "action"]


@dataclass(frozen=True)
class _Piece:
    """Rows of one shard in a generation, and what the shard becomes by them."""

    shard: Shard
    rows: pa.Table


def write_manifest(folder: Folder, source: Source, shard_size: int, run: str) -> Manifest:
    """Cuts images into shards and publishes the manifest, part by part; memory grows with shards, not images.

    Args:
        folder: The run's folder.
        source: Lists the images.
        shard_size: Images in a shard.
        run: The run's id, which each part carries.

    Raises:
        InputError: There are no images, or another run writes to the folder.
    """
    nothing = Manifest([], 0, 0, describe_source(source), (), (), 0, source.in_path_order)
    manifest = _publish(folder, nothing, _cut(map(_added, source.batches()), shard_size, 0), source, run)
    if not manifest.shards:
        raise _no_images(source)
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
) -> tuple[Manifest, dict[str, int]]:
    """Merges a new listing with the manifest; where they differ, `_SUCCESS` goes and a new generation is published.

    New images are cut into new shards; all others keep theirs. Memory grows with shards, not images.

    Args:
        folder: The run's folder.
        manifest: As it is.
        source: Lists the images.
        shard_size: Images in a new shard.
        run: The run's id, which each part carries.
        prune: Whether images that are gone are removed, instead of being marked.
        retry: Whether those that failed are asked for again; those that were gone and are back are in any case.
        failed: Tells which paths of a shard failed for a reason that may have passed.

    Returns:
        The manifest, and how many images are `new`, `changed`, `missing`, `returned`, `pruned` or `retried`.

    Raises:
        InputError: There are no images any more, it is another archive than the one that the manifest names, or
            another run writes to the folder.
    """
    counts: Counter[str] = Counter()
    after = source.batches()
    if not source.in_path_order:
        after = batches_in_order(after, _path_key)
    before = rows_in_path_order(
        folder, manifest, lambda shard: failed(shard) if retry or shard.missing else frozenset()
    )
    differences = batches_in_order(_differences(before, after, prune, retry, counts), _place_key)
    pieces: Iterator[_Piece] = itertools.chain.from_iterable(
        _cut(rows, shard_size, len(manifest.shards))
        if number == NEW
        else [_changed(folder, manifest.shards[number], pa.Table.from_batches(rows))]
        for number, rows in _by_shard(differences)
    )
    must_know = bool(manifest.images) and (prune or describe_source(source) != manifest.source)
    pieces = _checked(pieces, counts, must_know, source, manifest)
    return _publish(folder, manifest, pieces, source, run), {name: counts[name] for name in CHANGES}


def _differences(
    before: Iterator[pa.RecordBatch], after: Iterator[pa.RecordBatch], prune: bool, retry: bool, counts: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """What makes the manifest's rows those of a new listing, if both are in the order of paths' bytes.

    Besides the changes, `counts` gains how many images are `listed`, and how many of them were `known`.
    """
    for old, new in aligned([before, after], [_KNOWN, IMAGES]):
        found = new.take(pc.index_in(old["path"], new["path"]))  # rows of nulls where there is none
        # A name that leads nowhere any more, as a link to a lost disk, is gone too.
        known = _where(found["path"].is_valid()) & (_says_something(found) | ~_says_something(old))
        same, was_missing = _same(found, old), _where(pc.equal(old["action"], MISSING))
        retried = known & same & _where(old["failed"]) & (was_missing | retry)
        returned = known & same & was_missing & ~retried
        lost = ~known & (~was_missing | prune)
        unknown = ~_where(pc.is_in(new["path"], old["path"]))
        counts["known"] += _count(known)
        counts["listed"] += _count(known) + _count(unknown)
        for kind, action, chosen, images, attempt in (
            ("changed", CHANGE, known & ~same, found, _numbers(0, len(old))),
            ("retried", CHANGE, retried, old, pc.add(old["attempt"], pa.scalar(1, pa.int32()))),
            ("returned", CHANGE, returned, old, old["attempt"]),
            ("pruned", REMOVE, lost & prune, old, old["attempt"]),
            ("missing", MISSING, lost & (not prune), old, old["attempt"]),
        ):
            if chosen.any():
                counts[kind] += _count(chosen)
                yield _rows(images, old["shard"], attempt, action).filter(pa.array(chosen))
        if unknown.any():
            counts["new"] += _count(unknown)
            yield _added(new.filter(pa.array(unknown)))


def _where(condition: pa.Array) -> NDArray[np.bool_]:
    """Where a condition holds: bool [rows]; not where it is null."""
    return condition.fill_null(False).to_numpy(zero_copy_only=False)


def _count(chosen: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(chosen))


def _same(rows: pa.RecordBatch, others: pa.RecordBatch) -> NDArray[np.bool_]:
    """Where the images of two batches are the same, row by row: bool [rows]."""
    same = np.ones(len(rows), bool)
    for name in IMAGES.names:
        one, other = rows[name], others[name]
        same &= _where(pc.equal(one, other)) | _where(pc.and_(one.is_null(), other.is_null()))
    return same


def _says_something(rows: pa.RecordBatch) -> NDArray[np.bool_]:
    """Where a listing knows anything of an image but its name: bool [rows]."""
    has_time = pc.not_equal(rows["mtime"].cast(pa.int64()), 0)  # the epoch stands for none
    has_place = pc.or_(rows["source"].is_valid(), rows["offset"].is_valid())
    return _where(pc.not_equal(rows["bytes"], 0)) | _where(has_time) | _where(has_place)


def _checked(
    pieces: Iterator[_Piece], counts: Counter[str], must_know: bool, source: Source, manifest: Manifest
) -> Iterator[_Piece]:
    """Refuses a listing that would make the archive vanish, before the first piece of it is published."""
    first = next(pieces, None)
    if not counts["listed"]:
        raise _no_images(source)
    if must_know and not counts["known"]:
        raise InputError(
            f"None of the images in {source.url} is one of those that the folder was begun with, in "
            f"{manifest.source}: choose another folder for them."
        )
    return itertools.chain([first], pieces) if first else iter(())


def _added(images: pa.RecordBatch) -> pa.RecordBatch:
    """Manifest rows of images that have no shard yet."""
    return _rows(images, _numbers(NEW, len(images)), _numbers(0, len(images)), ADD)


def _numbers(number: int, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(number, pa.int32()), count)


def _rows(images: pa.RecordBatch, shards: pa.Array, attempts: pa.Array, action: str) -> pa.RecordBatch:
    """Manifest rows: images, what shards they stand in, how often they were asked for again, and what is done."""
    columns = [shards, *(images[name] for name in IMAGES.names), attempts, pa.repeat(action, len(images))]
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)


def _by_shard(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, Iterator[pa.RecordBatch]]]:
    """The rows of each shard, if they stand one behind the other."""

    def pieces() -> Iterator[tuple[int, pa.RecordBatch]]:
        for batch in batches:
            numbers = batch["shard"].to_numpy()
            for start, stop in itertools.pairwise([0, *np.flatnonzero(np.diff(numbers)) + 1, len(batch)]):
                yield int(numbers[start]), batch.slice(start, stop - start)

    for number, group in itertools.groupby(pieces(), itemgetter(0)):
        yield number, (rows for _, rows in group)


def _cut(batches: Iterable[pa.RecordBatch], size: int, first: int) -> Iterator[_Piece]:
    """Cuts rows into new shards, the first of which has the number `first`."""
    for number, pieces in enumerate(_in_chunks(batches, size), first):
        rows = pa.Table.from_batches(pieces)
        rows = rows.set_column(0, _SCHEMA.field("shard"), _numbers(number, len(rows)))
        yield _Piece(_shard(number, rows), rows)


def _in_chunks(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[list[pa.RecordBatch]]:
    """Slices of batches, so many that each list has `size` rows, the last one the rest."""
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


def _changed(folder: Folder, shard: Shard, rows: pa.Table) -> _Piece:
    """What rows of a new generation make of a shard."""
    return _Piece(_shard(shard.number, _applied(read_rows(folder, shard), rows)), rows)


def _publish(folder: Folder, manifest: Manifest, pieces: Iterator[_Piece], source: Source, run: str) -> Manifest:
    """Publishes a generation, part by part, unless it has nothing in it; gives the manifest as it is then."""
    shards = list(manifest.shards)
    part = manifest.parts
    runs = (*manifest.runs, run)
    piece = next(pieces, None)
    if piece is None:
        _delete_parts_behind(folder, part)
        return replace(manifest, is_complete=True)
    folder.delete(SUCCESS)
    while piece is not None:
        with (
            folder.publish(_part_name(part)) as scratch,
            pq.ParquetWriter(
                scratch, _SCHEMA, compression="zstd", use_dictionary=_REPETITIVE, write_page_checksum=True
            ) as writer,
        ):
            written: list[Shard] = []
            while piece is not None and len(written) < _SHARDS_A_PART:
                writer.write_table(piece.rows, row_group_size=len(piece.rows))
                _put(shards, piece.shard, (part, len(written)))
                written.append(piece.shard)
                piece = next(pieces, None)
            content: dict[str, Any] = {"runs": runs, "last": piece is None}
            content |= {"source": describe_source(source), "ignored": source.ignored, "repeated": source.repeated}
            content |= {"in_path_order": source.in_path_order, "shards": [shard_to_json(shard) for shard in written]}
            writer.add_key_value_metadata({_PART_KEY: json.dumps(with_format(content)).encode()})
        part += 1
    _delete_parts_behind(folder, part)
    for number in range(manifest.parts, part):
        found = _read_part(folder, number)
        if found is None or found["runs"][-1] != run:
            raise InputError(
                f"{folder.url} is being written by another run: wait until it ends, or choose another folder."
            )
    return replace(
        manifest,
        shards=shards,
        ignored=source.ignored,
        repeated=source.repeated,
        source=describe_source(source),
        runs=runs,
        first_shards=(*manifest.first_shards, len(manifest.shards)),
        parts=part,
        in_path_order=manifest.in_path_order and source.in_path_order,
        is_complete=True,
    )


def _shard(number: int, rows: pa.Table) -> Shard:
    """A shard of these rows, wherever they lie."""
    return Shard(number, len(rows), _inputs(rows), pc.sum(pc.equal(rows["action"], MISSING)).as_py() or 0)


def _no_images(source: Any) -> InputError:
    return InputError(
        f"There are no images in {source.url}: {source.ignored} files are there, and none has a name that ends in "
        f"{', '.join(SUFFIXES)}."
    )


def _place_key(rows: pa.RecordBatch) -> list[pa.Array]:
    """Where images lie: their shard, and within that the order in which a file that holds several is read best."""
    return [rows["shard"], rows["source"].fill_null(""), rows["offset"].fill_null(0), *_path_key(rows)]
