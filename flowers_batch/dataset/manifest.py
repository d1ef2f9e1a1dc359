"""The manifest: which image is in which shard.

The manifest grows by generations, each of one or more parts: the first lists all images, each later one what was
added, changed, marked as missing or removed. A row group holds rows of one shard, so the current rows of a shard are
those of a few row groups, applied one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.dataset.listing import Listing, listing_from_json
from flowers_batch.dataset.manifest_part import (
    MANIFEST_SCHEMA,
    MISSING,
    damaged_part,
    delete_parts_from,
    part_name,
    parts_from,
    read_part,
)
from flowers_batch.dataset.manifest_rows import inputs_digest_of, path_key, shard_states
from flowers_batch.dataset.shard import Shard, shard_from_json
from flowers_batch.errors import InputError
from flowers_batch.sources.images import Image, images_of
from flowers_batch.sources.ordering import batches_in_order, merged, with_path_order
from flowers_batch.storage.folder import Folder

_MAX_MERGED_GENERATIONS = 64  # each has a shard's rows in memory


KNOWN_SCHEMA = MANIFEST_SCHEMA.append(pa.field("failed", pa.bool_(), nullable=False))


@dataclass(frozen=True)
class Manifest:
    """All shards of a run.

    Attributes:
        shards: In the order of their numbers.
        listing: How the images were listed last.
        runs: The ids of the runs that made its generations.
        first_shards: The first new shard of each generation.
        parts: How many parts it has.
        in_path_order: Whether each generation's new images are in the order of their paths' bytes.
        is_complete: Whether the last generation is complete: a killed run may leave one without its last part.
    """

    shards: list[Shard]
    listing: Listing
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
    """Return all shards; None if there is no manifest, or a killed run left its first generation incomplete.

    Parts after the last complete generation were left by a run that was killed while it listed.

    Raises:
        InputError: A part is damaged, or is missing between others.
    """
    manifest = None
    shards: list[Shard] = []
    first_shards: list[int] = []
    runs: list[str] = []
    in_path_order = True
    generation: tuple[str, int] | None = None  # that is being read: its run and its first shard
    for part in itertools.count():
        content = read_part(folder, part)
        if content is None or content["runs"][:-1] != runs:
            break
        generation = generation or (content["runs"][-1], len(shards))
        if content["runs"][-1] != generation[0]:
            break
        for row_group, values in enumerate(content["shards"]):
            if values["number"] > len(shards):
                raise damaged_part(folder, part)
            put_shard(shards, shard_from_json(values), (part, row_group))
        in_path_order &= content["in_path_order"]
        if content["last"]:
            first_shards.append(generation[1])
            runs = content["runs"]
            manifest = Manifest(
                shards=list(shards),
                listing=listing_from_json(content),
                runs=tuple(runs),
                first_shards=tuple(first_shards),
                parts=part + 1,
                in_path_order=in_path_order,
            )
            generation = None
    if content is None and any(name > part_name(part) for name in parts_from(folder, part)):
        raise damaged_part(folder, part)
    return manifest and replace(manifest, is_complete=not (content or generation))


def read_rows(folder: Folder, shard: Shard) -> pa.Table:
    """Return a shard's manifest rows as they are now.

    Raises:
        InputError: They are not those that the shard was read with: a part is damaged, or was altered since.
        RunError: A part no longer exists, or the disk or the store fails.
    """
    *_, rows = shard_states(folder, shard)
    missing = pc.sum(pc.equal(rows["action"], MISSING)).as_py() or 0
    if (inputs_digest_of(rows), missing) != (shard.inputs_digest, shard.missing):
        raise damaged_part(folder, shard.locations[-1][0])
    return rows


def rows_in_path_order(
    folder: Folder,
    manifest: Manifest,
    failed: Callable[[Shard], Set[str]] = lambda shard: frozenset(),
    *,
    max_merged: int = _MAX_MERGED_GENERATIONS,
) -> Iterator[pa.RecordBatch]:
    """Stream all rows in the order of their paths' bytes, a few shards in memory at a time.

    Args:
        folder: The run's folder.
        manifest: The current one.
        failed: Returns which paths of a shard have failed.
        max_merged: Generations that are merged in memory; more are sorted in a scratch file.

    Yields:
        Batches of the manifest's columns and `failed`.

    Raises:
        InputError: A part is damaged, or its rows are not in the order that it states.
        RunError: A part no longer exists, or the disk or the store fails.
    """

    def rows(shard: Shard) -> list[pa.RecordBatch]:
        table = read_rows(folder, shard)
        have_failed = pc.is_in(table["path"], pa.array(list(failed(shard)), pa.string()))
        return table.append_column(KNOWN_SCHEMA.field("failed"), have_failed).combine_chunks().to_batches()

    generations = [
        itertools.chain.from_iterable(map(rows, manifest.shards[first:stop]))
        for first, stop in itertools.pairwise((*manifest.first_shards, len(manifest.shards)))
    ]
    if manifest.in_path_order and len(generations) <= max_merged:
        return merged([_in_stated_order(folder, generation) for generation in generations], KNOWN_SCHEMA)
    return batches_in_order(itertools.chain.from_iterable(generations), path_key)


def _in_stated_order(folder: Folder, generation: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches of a generation whose part says that they are in the order of their paths' bytes."""
    for batch, is_in_order in with_path_order(generation):
        if not is_in_order:
            raise InputError(
                f"The manifest of {folder.url} does not have its photos in the order that it says: restore it, or "
                "begin in a new folder."
            )
        yield batch


def find_images(folder: Folder, paths: Set[str]) -> dict[str, Image]:
    """Return a few images by their paths; those that the manifest does not name are left out."""
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
    """Copy a manifest as it is, so that shards keep their numbers and images; its last part is copied last."""
    for part in range(manifest.parts):
        with target.publish(part_name(part)) as scratch:
            source.copy_to(part_name(part), scratch)
    delete_parts_from(target, manifest.parts)


def put_shard(shards: list[Shard], shard: Shard, location: tuple[int, int]) -> None:
    """Put a shard at its number, with a row group added to its locations."""
    number = shard.number
    before = shards[number].locations if number < len(shards) else ()
    shards[number : number + 1] = [replace(shard, locations=(*before, location))]
