"""The manifest: which image stands in which shard, what a grown archive adds, and which shards are complete.

The manifest grows by generations, each of one or more parts: the first lists all images, each later one what was
added, changed, marked as gone or removed. A row group holds rows of one shard, so a shard's rows as they are now are
those of a few row groups, applied one after the other.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowers_batch.config import InputError
from flowers_batch.dataset import SUCCESS, Footer, read_footer, read_note, read_shard
from flowers_batch.sorting import in_order, microseconds, time_of
from flowers_batch.sources import SUFFIXES, Image, Source, images_of, path_bytes
from flowers_batch.storage import Folder, persistently

MANIFEST = "manifest"
NEW = 2**31 - 1  # stands for the shard of an image that has none yet, and sorts behind all others
ADD, CHANGE, GONE, REMOVE = "add", "change", "gone", "remove"
_PART_KEY = b"flowers_batch.manifest.2"  # the number changes with what is written there
_SHARDS_A_PART = 256
_FOOTERS_AT_ONCE = 32  # reading a footer is waiting, mostly
_GENERATIONS_MERGED = 64  # each has a shard's rows in memory meanwhile
CHANGES = ("new", "changed", "vanished", "returned", "pruned", "retried")

_IMAGE_COLUMNS = [field.name for field in fields(Image)]
_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("mtime", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
    ]
)


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
class Row:
    """An image in the manifest.

    Attributes:
        image: As it was listed.
        shard: Its shard; `NEW` if it has none yet.
        attempt: How often it was asked for again after it had failed.
        action: What its last generation did: `add`, `change`, `gone` or `remove`.
        failed: Whether it is known to have failed for a reason that may have passed.
    """

    image: Image
    shard: int = NEW
    attempt: int = 0
    action: str = ADD
    failed: bool = False


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
    manifest = _publish(folder, nothing, _cut(map(Row, source.images()), shard_size, 0), source, run)
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
    after: Iterator[Row] = map(Row, source.images())
    if not source.in_path_order:
        after = _sorted(after, lambda row: (_path_key(row),))
    before = rows_in_path_order(folder, manifest, lambda shard: failed(shard) if retry or shard.gone else frozenset())
    differences = _sorted(_differences(before, after, prune, retry, counts), _place_key)
    pieces: Iterator[_Piece] = itertools.chain.from_iterable(
        _cut(rows, shard_size, len(manifest.shards))
        if number == NEW
        else [_changed(folder, manifest.shards[number], list(rows))]
        for number, rows in itertools.groupby(differences, lambda row: row.shard)
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
) -> Iterator[Row]:
    """Streams all rows in the order of their paths' bytes; `failed` tells which of a shard's paths have failed."""

    def rows(shard: Shard) -> Iterator[Row]:
        table, paths = read_rows(folder, shard), failed(shard)
        columns = [table[name].to_pylist() for name in ("attempt", "action")]
        for image, attempt, action in zip(images_of(table), *columns, strict=True):
            yield Row(image, shard.number, attempt, action, image.path in paths)

    generations = [
        itertools.chain.from_iterable(map(rows, manifest.shards[first:stop]))
        for first, stop in itertools.pairwise((*manifest.first_shards, len(manifest.shards)))
    ]
    if manifest.in_path_order and len(generations) <= _GENERATIONS_MERGED:
        return heapq.merge(*generations, key=_path_key)
    return _sorted(itertools.chain.from_iterable(generations), lambda row: (_path_key(row),))


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
    before: Iterator[Row], after: Iterator[Row], prune: bool, retry: bool, counts: Counter[str]
) -> Iterator[Row]:
    """What makes the manifest's rows those of a new listing, if both are in the order of paths' bytes.

    Besides the changes, `counts` gains how many images are `listed`, and how many of them were `known`.
    """
    for _, rows in itertools.groupby(heapq.merge(before, after, key=_path_key), _path_key):
        old, *others = rows
        new = others[0].image if others else old.image
        if old.shard == NEW:
            counts["listed"] += 1
            counts["new"] += 1
            yield old
        elif others and (_says_something(new) or not _says_something(old.image)):
            counts["listed"] += 1
            counts["known"] += 1
            if new != old.image:
                counts["changed"] += 1
                yield Row(new, old.shard, 0, CHANGE)
            elif old.failed and (retry or old.action == GONE):
                counts["retried"] += 1
                yield Row(new, old.shard, old.attempt + 1, CHANGE)
            elif old.action == GONE:
                counts["returned"] += 1
                yield replace(old, action=CHANGE)
        elif prune:
            counts["pruned"] += 1
            yield replace(old, action=REMOVE)
        elif old.action != GONE:  # a name that leads nowhere any more, as a link to a lost disk, is gone too
            counts["vanished"] += 1
            yield replace(old, action=GONE)


def _says_something(image: Image) -> bool:
    """Whether the listing knows anything of the image but its name."""
    return image != Image(image.path)


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


def _cut(rows: Iterable[Row], size: int, first: int) -> Iterator[_Piece]:
    """Cuts rows into new shards, the first of which has the number `first`."""
    rows = iter(rows)
    for number in itertools.count(first):
        chunk = list(itertools.islice(rows, size))
        if not chunk:
            return
        table = _table(number, chunk)
        yield _Piece(_shard(number, table), table)


def _changed(folder: Folder, shard: Shard, rows: list[Row]) -> _Piece:
    """What rows of a new generation make of a shard."""
    table = _table(shard.number, rows)
    return _Piece(_shard(shard.number, _applied(read_rows(folder, shard), table)), table)


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
            pq.ParquetWriter(scratch, _SCHEMA, compression="zstd", write_page_checksum=True) as writer,
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
    by_path = {row["path"]: row for table in (rows, delta) for row in table.to_pylist()}
    return pa.Table.from_pylist([row for row in by_path.values() if row["action"] != REMOVE], _SCHEMA)


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


def _table(shard: int, rows: list[Row]) -> pa.Table:
    columns = {name: [getattr(row.image, name) for row in rows] for name in _IMAGE_COLUMNS}
    columns |= {"shard": [shard] * len(rows), "attempt": [row.attempt for row in rows]}
    columns |= {"action": [row.action for row in rows]}
    return pa.table([pa.array(columns[field.name], field.type) for field in _SCHEMA], _SCHEMA)


def _input_columns(rows: pa.Table) -> list[list[str | None]]:
    """What a shard's file is made from, as columns of words: manifest rows less shard and action; paths come first."""
    return [rows[name].cast(pa.string()).to_pylist() for name in (*_IMAGE_COLUMNS, "attempt")]


def _inputs(rows: pa.Table) -> str:
    """SHA-256 of what a shard's file is made from."""
    return hashlib.sha256(json.dumps(_input_columns(rows)).encode()).hexdigest()


def _path_key(row: Row) -> bytes:
    return path_bytes(row.image.path)


def _place_key(row: Row) -> tuple[int, str, int, bytes]:
    """Where an image lies: its shard, and within that the order in which a file that holds several is read best."""
    return row.shard, row.image.source or "", row.image.offset or 0, _path_key(row)


def _sorted(rows: Iterable[Row], key: Callable[[Row], tuple[Any, ...]]) -> Iterator[Row]:
    """Sorts rows outside memory."""
    tuples = ((*key(row), *_flat(row)) for row in rows)
    for *_, path, size, changed, source, offset, shard, attempt, action, failed in in_order(tuples):
        yield Row(Image(path, size, time_of(changed), source, offset), shard, attempt, action, bool(failed))


def _flat(row: Row) -> tuple[Any, ...]:
    image = row.image
    listed = (image.path, image.bytes, microseconds(image.mtime), image.source, image.offset)
    return (*listed, row.shard, row.attempt, row.action, row.failed)
