"""The manifest: which image is in which shard.

The manifest grows by generations, each of one or more parts: the first lists all images, each later one what was
added, changed, marked as missing or removed. A row group holds rows of one shard, so the current rows of a shard are
those of a few row groups, applied one after the other.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.format_version import in_current_format
from flowers_batch.dataset.shard_file import read_note
from flowers_batch.errors import InputError
from flowers_batch.sources.images import IMAGES, Image, images_of, paths_bytes
from flowers_batch.sources.ordering import batches_in_order, merged
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.retries import with_retries

MANIFEST = "manifest"
ADD, CHANGE, MISSING, REMOVE = "add", "change", "missing", "remove"
_PART_KEY = b"flowers_batch.manifest"  # version 0.1, which has another key, refuses parts of this one
_GENERATIONS_MERGED = 64  # each has a shard's rows in memory meanwhile

_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        *IMAGES,
        pa.field("attempt", pa.int32(), nullable=False),  # how often it was asked for again after it had failed
        pa.field(
            "action", pa.string(), nullable=False
        ),  # of its last generation: `add`, `change`, `missing` or `remove`
    ]
)
_KNOWN = _SCHEMA.append(pa.field("failed", pa.bool_(), nullable=False))
_INPUTS = (*IMAGES.names, "attempt")  # what a shard's file is made from


@dataclass(frozen=True)
class Shard:
    """A shard as the driver and the actors know it; its images' names stay in the manifest.

    Attributes:
        number: From 0, and the shard's for life.
        images: How many images it holds.
        inputs_digest: SHA-256 of its manifest rows.
        missing: How many of its images the last listing did not find.
        places: Part and row group of its rows, in the order of their generations.
    """

    number: int
    images: int
    inputs_digest: str
    missing: int = 0
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
    is_complete: bool = True

    @property
    def images(self) -> int:
        """How many images there are in all."""
        return sum(shard.images for shard in self.shards)

    @property
    def missing(self) -> int:
        """How many of them the last listing did not find."""
        return sum(shard.missing for shard in self.shards)


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
            _put(shards, _shard_from_json(values), (part, row_group))
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
    return manifest and replace(manifest, is_complete=not (content or begun))


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


def describe_source(source: Source) -> str:
    """Where a manifest's images were listed, as words."""
    return source.url if source.root is None else f"{source.url}, below {source.root}"


def shard_to_json(shard: Shard) -> dict[str, Any]:
    """Return what a part's metadata says of a shard, besides its place."""
    return {
        "number": shard.number,
        "images": shard.images,
        "inputs_digest": shard.inputs_digest,
        "missing": shard.missing,
    }


def _shard_from_json(value: dict[str, Any]) -> Shard:
    return Shard(value["number"], value["images"], value["inputs_digest"], value["missing"])


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
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            rows = parquet.read_row_group(row_group, _SCHEMA.names)
            is_old = formats_0_1.PART_KEY in (parquet.metadata.metadata or {})
            return formats_0_1.upgrade_rows(rows) if is_old else rows

    try:
        return with_retries(read)
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
        content = read_note(folder, _part_name(part), _PART_KEY, formats_0_1.PART_KEY)
        return in_current_format(content, folder.url_of(_part_name(part)), formats_0_1.upgrade_part)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):  # a part is published whole, so no killed run left it like this
        raise _damaged(folder, part) from None


def _damaged(folder: Folder, part: int) -> InputError:
    return InputError(f"{folder.url_of(_part_name(part))} is missing or damaged: restore it, or begin in a new folder.")


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
