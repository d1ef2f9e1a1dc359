"""The manifest: which image stands in which shard, what a grown archive adds, and which shards are complete.

The manifest grows by generations, each of one or more parts: the first lists all images, each later one what was
added, changed, marked as gone or removed. A row group holds rows of one shard, so a shard's rows as they are now are
those of a few row groups, applied one after the other.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowers_batch.config import InputError
from flowers_batch.dataset import SUCCESS, Footer, read_footer, read_note, read_shard
from flowers_batch.sorting import aligned, batches_in_order, merged
from flowers_batch.sources import IMAGES, SUFFIXES, Image, Source, images_of, paths_bytes
from flowers_batch.storage import Folder, persistently

MANIFEST = "manifest"
NEW = 2**31 - 1  # stands for the shard of an image that has none yet, and sorts behind all others
ADD, CHANGE, GONE, REMOVE = "add", "change", "gone", "remove"
_PART_KEY = b"flowers_batch.manifest.3"  # the number changes with what is written there
_SHARDS_A_PART = 256
_FOOTERS_AT_ONCE = 32  # reading a footer is waiting, mostly
_GENERATIONS_MERGED = 64  # each has a shard's rows in memory meanwhile
CHANGES = ("new", "changed", "vanished", "returned", "pruned", "retried")

_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        *IMAGES,
        pa.field("attempt", pa.int32(), nullable=False),  # how often it was asked for again after it had failed
        pa.field("action", pa.string(), nullable=False),  # of its last generation: `add`, `change`, `gone` or `remove`
    ]
)
_KNOWN = _SCHEMA.append(pa.field("failed", pa.bool_(), nullable=False))
_INPUTS = (*IMAGES.names, "attempt")  # what a shard's file is made from
_REPETITIVE = ["shard", "source", "attempt", "action"]


@dataclass(frozen=True)
class Shard:
    """A shard as the driver and the actors know it; its images' names stay in the manifest.

    Attributes:
        number: From 0, and the shard's for life.
        images: How many images it holds.
        inputs: SHA-256 of its manifest rows.
        gone: How many of its images the last listing did not find.
        places: Part and row group of its rows, in the order of their generations.
    """

    number: int
    images: int
    inputs: str
    gone: int = 0
    places: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """All shards of a run.

    Attributes:
        shards: In the order of their numbers.
        ignored: Files that were no images when they were listed.
        repeated: Images that their source named again, and that are rows once.
        source: Where the images were listed.
        runs: The ids of the runs that made its generations.
        first_shards: The first new shard of each generation.
        parts: How many parts it has.
        in_path_order: Whether each generation's new images are in the order of their paths' bytes.
        is_whole: Whether no killed run left a generation without its end.
    """

    shards: list[Shard]
    ignored: int
    repeated: int
    source: str
    runs: tuple[str, ...]
    first_shards: tuple[int, ...]
    parts: int
    in_path_order: bool
    is_whole: bool = True

    @property
    def images(self) -> int:
        """How many images there are in all."""
        return sum(shard.images for shard in self.shards)

    @property
    def gone(self) -> int:
        """How many of them the last listing did not find."""
        return sum(shard.gone for shard in self.shards)


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
    nothing = Manifest([], 0, 0, place_of(source), (), (), 0, source.in_path_order)
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
        The manifest, and how many images are `new`, `changed`, `vanished`, `returned`, `pruned` or `retried`.

    Raises:
        InputError: There are no images any more, it is another archive than the one that the manifest names, or
            another run writes to the folder.
    """
    counts: Counter[str] = Counter()
    after = source.batches()
    if not source.in_path_order:
        after = batches_in_order(after, _path_key)
    before = rows_in_path_order(folder, manifest, lambda shard: failed(shard) if retry or shard.gone else frozenset())
    differences = batches_in_order(_differences(before, after, prune, retry, counts), _place_key)
    pieces: Iterator[_Piece] = itertools.chain.from_iterable(
        _cut(rows, shard_size, len(manifest.shards))
        if number == NEW
        else [_changed(folder, manifest.shards[number], pa.Table.from_batches(rows))]
        for number, rows in _by_shard(differences)
    )
    must_know = bool(manifest.images) and (prune or place_of(source) != manifest.source)
    pieces = _checked(pieces, counts, must_know, source, manifest)
    return _publish(folder, manifest, pieces, source, run), {name: counts[name] for name in CHANGES}


def read_manifest(folder: Folder) -> Manifest | None:
    """Reads which shards there are; None where there is no manifest, or a killed run left it without its end.

    Parts behind the last whole generation were left by a run that was killed while it listed.

    Raises:
        InputError: A part is damaged, or is missing between others.
    """
    manifest = None
    shards: list[Shard] = []
    first_shards: list[int] = []
    runs: list[str] = []
    in_path_order = True
    begun: tuple[str, int] | None = None  # run and first shard of the generation that is being read
    for part in itertools.count():
        content = _read_part(folder, part)
        if content is None or content["runs"][:-1] != runs:
            break
        begun = begun or (content["runs"][-1], len(shards))
        if content["runs"][-1] != begun[0]:
            break
        for row_group, values in enumerate(content["shards"]):
            _put(shards, Shard(*values), (part, row_group))
        in_path_order &= content["in_path_order"]
        if content["last"]:
            first_shards.append(begun[1])
            runs = content["runs"]
            manifest = Manifest(
                shards=list(shards),
                ignored=content["ignored"],
                repeated=content["repeated"],
                source=content["source"],
                runs=tuple(runs),
                first_shards=tuple(first_shards),
                parts=part + 1,
                in_path_order=in_path_order,
            )
            begun = None
    if content is None and any(name > _part_name(part) for name in _parts_behind(folder, part)):
        raise _damaged(folder, part)
    return manifest and replace(manifest, is_whole=not (content or begun))


def read_rows(folder: Folder, shard: Shard) -> pa.Table:
    """Reads a shard's manifest rows as they are now."""
    *_, rows = _states(folder, shard)
    return rows


def rows_in_path_order(
    folder: Folder, manifest: Manifest, failed: Callable[[Shard], Set[str]] = lambda shard: frozenset()
) -> Iterator[pa.RecordBatch]:
    """Streams all rows in the order of their paths' bytes, a few shards in memory at a time.

    Args:
        folder: The run's folder.
        manifest: As it is.
        failed: Tells which paths of a shard have failed.

    Yields:
        Batches of the manifest's columns and `failed`.
    """

    def rows(shard: Shard) -> list[pa.RecordBatch]:
        table = read_rows(folder, shard)
        have_failed = pc.is_in(table["path"], pa.array(list(failed(shard)), pa.string()))
        return table.append_column(_KNOWN.field("failed"), have_failed).combine_chunks().to_batches()

    generations = [
        itertools.chain.from_iterable(map(rows, manifest.shards[first:stop]))
        for first, stop in itertools.pairwise((*manifest.first_shards, len(manifest.shards)))
    ]
    if manifest.in_path_order and len(generations) <= _GENERATIONS_MERGED:
        return merged(generations, _KNOWN)
    return batches_in_order(itertools.chain.from_iterable(generations), _path_key)


def find_images(folder: Folder, paths: Set[str]) -> dict[str, Image]:
    """Where a few images lie, by their paths; those that the manifest does not name are left out."""
    found: dict[str, Image] = {}
    wanted = pa.array(list(paths), pa.string())
    manifest = read_manifest(folder)
    for shard in manifest.shards if manifest else ():
        if len(found) == len(paths):
            break
        rows = read_rows(folder, shard)
        found |= {image.path: image for image in images_of(rows.filter(pc.is_in(rows["path"], wanted)))}
    return found


def copy_manifest(source: Folder, target: Folder, manifest: Manifest) -> None:
    """Copies a manifest as it is, so that shards keep their numbers and images; its last part is copied last."""
    for part in range(manifest.parts):
        with (
            source.open(_part_name(part)) as file,
            target.publish(_part_name(part)) as scratch,
            open(scratch, "wb") as out,
        ):
            out.write(file.read())
    _delete_parts_behind(target, manifest.parts)


def completed(folder: Folder, kind: str, manifest: Manifest, fingerprint: str) -> dict[int, Footer]:
    """Reads which shards are complete: their files' footers are what fingerprint and manifest expect."""

    def footer(shard: Shard) -> Footer | None:
        found = read_footer(folder, kind, shard.number)
        expected = (fingerprint, shard.number, shard.inputs, shard.images)
        if found and (found.fingerprint, found.shard, found.inputs, found.ok + found.failed) == expected:
            return found
        return None

    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        found = pool.map(footer, manifest.shards)
        return {shard.number: footer for shard, footer in zip(manifest.shards, found, strict=True) if footer}


def carried_over(
    folder: Folder, kind: str, shard: Shard, schema: pa.Schema, fingerprint: str
) -> tuple[pa.Array, Iterator[pa.RecordBatch]]:
    """The rows of a shard's file that still hold although the shard has changed; none where it has no such file.

    A row holds if the manifest says of its image what it said when the file was written: the file's footer tells
    by its `inputs` which of the shard's former states that was.

    Returns:
        The rows' paths, and the rows in the manifest's order, a row group in memory at a time.
    """
    none = pa.array([], pa.string()), iter(())
    footer = read_footer(folder, kind, shard.number)
    if footer is None or (footer.fingerprint, footer.shard) != (fingerprint, shard.number):
        return none
    if footer.inputs == shard.inputs:  # asked for anew although nothing changed
        return none
    *former, now = _states(folder, shard)
    then = next((state for state in reversed(former) if _inputs(state) == footer.inputs), None)
    if then is None:
        return none
    same = set(zip(*_input_columns(then), strict=True)) & set(zip(*_input_columns(now), strict=True))
    paths = pa.array([row[0] for row in same], pa.string())

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in read_shard(folder, kind, shard.number, schema.names):
            yield batch.filter(pc.is_in(batch["path"], paths))

    try:
        found = sum(map(len, rows()))  # all of it is read once before, since a damaged file is written anew
    except InputError:
        return none
    return (paths, rows()) if found == len(paths) else none


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
        same, was_gone = _same(found, old), _where(pc.equal(old["action"], GONE))
        retried = known & same & _where(old["failed"]) & (was_gone | retry)
        returned = known & same & was_gone & ~retried
        lost = ~known & (~was_gone | prune)
        unknown = ~_where(pc.is_in(new["path"], old["path"]))
        counts["known"] += _count(known)
        counts["listed"] += _count(known) + _count(unknown)
        for kind, action, chosen, images, attempt in (
            ("changed", CHANGE, known & ~same, found, _numbers(0, len(old))),
            ("retried", CHANGE, retried, old, pc.add(old["attempt"], pa.scalar(1, pa.int32()))),
            ("returned", CHANGE, returned, old, old["attempt"]),
            ("pruned", REMOVE, lost & prune, old, old["attempt"]),
            ("vanished", GONE, lost & (not prune), old, old["attempt"]),
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


def place_of(source: Source) -> str:
    """Where a manifest's images were listed, as words."""
    return source.url if source.root is None else f"{source.url}, below {source.root}"


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
        return replace(manifest, is_whole=True)
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
            content |= {"source": place_of(source), "ignored": source.ignored, "repeated": source.repeated}
            content |= {"in_path_order": source.in_path_order, "shards": [_facts(shard) for shard in written]}
            writer.add_key_value_metadata({_PART_KEY: json.dumps(content).encode()})
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
        source=place_of(source),
        runs=runs,
        first_shards=(*manifest.first_shards, len(manifest.shards)),
        parts=part,
        in_path_order=manifest.in_path_order and source.in_path_order,
        is_whole=True,
    )


def _shard(number: int, rows: pa.Table) -> Shard:
    """A shard of these rows, wherever they lie."""
    return Shard(number, len(rows), _inputs(rows), pc.sum(pc.equal(rows["action"], GONE)).as_py() or 0)


def _facts(shard: Shard) -> tuple[int, int, str, int]:
    """What a part's footer tells of a shard, besides its place."""
    return shard.number, shard.images, shard.inputs, shard.gone


def _put(shards: list[Shard], shard: Shard, place: tuple[int, int]) -> None:
    """Puts a shard at its number, with one place more than it had there."""
    number = shard.number
    before = shards[number].places if number < len(shards) else ()
    shards[number : number + 1] = [replace(shard, places=(*before, place))]


def _states(folder: Folder, shard: Shard) -> Iterator[pa.Table]:
    """A shard's manifest rows after each generation that touched it."""
    rows = None
    for part, row_group in shard.places:
        delta = _row_group(folder, part, row_group)
        rows = delta if rows is None else _applied(rows, delta)
        yield rows


def _row_group(folder: Folder, part: int, row_group: int) -> pa.Table:
    def read() -> pa.Table:
        with folder.open(_part_name(part)) as file:
            return pq.ParquetFile(file, page_checksum_verification=True).read_row_group(row_group)

    try:
        return persistently(read)
    except (OSError, pa.ArrowException) as error:
        if getattr(error, "errno", None):
            raise
        raise _damaged(folder, part) from None


def _applied(rows: pa.Table, delta: pa.Table) -> pa.Table:
    """Rows of a shard after a later generation: changed in place, or removed."""
    later = pc.index_in(rows["path"], delta["path"])
    now = pc.coalesce(pc.add(later, len(rows)), pa.array(np.arange(len(rows))))
    rows = pa.concat_tables([rows, delta]).take(now)
    return rows.filter(pc.not_equal(rows["action"], REMOVE))


def _part_name(part: int) -> str:
    return f"{MANIFEST}/part-{part:06d}.parquet"


def _parts_behind(folder: Folder, part: int) -> list[str]:
    names = (f"{MANIFEST}/{name}" for name in folder.names(MANIFEST) if name.startswith("part-"))
    return [name for name in names if name >= _part_name(part)]


def _delete_parts_behind(folder: Folder, part: int) -> None:
    for name in reversed(_parts_behind(folder, part)):  # the last first: a kill must leave no gap
        folder.delete(name)


def _read_part(folder: Folder, part: int) -> dict[str, Any] | None:
    """What a part's footer tells; None where there is no such part."""
    try:
        return read_note(folder, _part_name(part), _PART_KEY)
    except FileNotFoundError:
        return None
    except ValueError:  # a part is published whole, so no killed run left it like this
        raise _damaged(folder, part) from None


def _damaged(folder: Folder, part: int) -> InputError:
    return InputError(
        f"{folder.url_of(_part_name(part))} is missing or damaged, or is not of this version of flowers_batch: restore "
        "it, or begin in a new folder."
    )


def _no_images(source: Any) -> InputError:
    return InputError(
        f"There are no images in {source.url}: {source.ignored} files are there, and none has a name that ends in "
        f"{', '.join(SUFFIXES)}."
    )


def _input_columns(rows: pa.Table) -> list[list[str | None]]:
    """What a shard's file is made from, as columns of words: manifest rows less shard and action; paths come first."""
    return [rows[name].cast(pa.string()).to_pylist() for name in _INPUTS]


def _inputs(rows: pa.Table) -> str:
    """SHA-256 of what a shard's file is made from, however the table is cut into chunks.

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


def _path_key(rows: pa.RecordBatch) -> list[pa.Array]:
    return [paths_bytes(rows["path"])]


def _place_key(rows: pa.RecordBatch) -> list[pa.Array]:
    """Where images lie: their shard, and within that the order in which a file that holds several is read best."""
    return [rows["shard"], rows["source"].fill_null(""), rows["offset"].fill_null(0), *_path_key(rows)]
