"""The manifest: which image stands in which shard, and which shards are complete."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowers_batch.config import InputError
from flowers_batch.dataset import Footer, read_footer
from flowers_batch.sources import SUFFIXES, Image, Source, path_bytes
from flowers_batch.storage import Folder

MANIFEST = "manifest"
_PART_KEY = b"flowers_batch.manifest"
_SHARDS_A_PART = 256
_FOOTERS_AT_ONCE = 32  # reading a footer is waiting, mostly

_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("mtime", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Shard:
    """A shard as the driver and the actors know it; its images' names stay in the manifest.

    Attributes:
        number: From 0, and the shard's for life.
        images: How many images it holds.
        inputs: SHA-256 of its manifest rows.
        part: The manifest part that holds its rows.
        row_group: Which of the part's row groups.
    """

    number: int
    images: int
    inputs: str
    part: int
    row_group: int


@dataclass(frozen=True)
class Manifest:
    """All shards of a run.

    Attributes:
        shards: In the order of their numbers.
        ignored: Files that were no images when they were listed.
        source: Where the images were listed.
    """

    shards: list[Shard]
    ignored: int
    source: str

    @property
    def images(self) -> int:
        """How many images there are in all."""
        return sum(shard.images for shard in self.shards)


def write_manifest(folder: Folder, source: Source, shard_size: int, run: str) -> Manifest:
    """Cuts images into shards and publishes the manifest, part by part; memory grows with shards, not images.

    Args:
        folder: The run's folder.
        source: Lists the images.
        shard_size: Images in a shard.
        run: The run's id, which each part carries.
    """
    shards: list[Shard] = []
    chunks = _chunks(source.images(), shard_size)
    chunk = next(chunks, None)
    part = 0
    while chunk is not None:
        with (
            folder.publish(_part_name(part)) as scratch,
            pq.ParquetWriter(scratch, _SCHEMA, compression="zstd") as writer,
        ):
            first = len(shards)
            while chunk is not None and len(shards) - first < _SHARDS_A_PART:
                table = _table(len(shards), chunk)
                writer.write_table(table, row_group_size=len(table))
                shards.append(Shard(len(shards), len(table), _inputs(table), part, len(shards) - first))
                chunk = next(chunks, None)
            content = {"run": run, "generation": 0, "last": chunk is None}
            content |= {"source": source.url, "ignored": source.ignored, "shards": list(map(astuple, shards[first:]))}
            writer.add_key_value_metadata({_PART_KEY: json.dumps(content).encode()})
        part += 1
    if not shards:
        raise InputError(
            f"There are no images in {source.url}: {source.ignored} files are there, and none has a name that ends in "
            f"{', '.join(SUFFIXES)}."
        )
    _check_is_ours(folder, part, run)
    return Manifest(shards, source.ignored, source.url)


def read_manifest(folder: Folder) -> Manifest | None:
    """Reads which shards there are; None where there is no manifest, or a killed run left it without its end."""
    shards: list[Shard] = []
    first = content = _read_part(folder, 0)
    part = 0
    # A part of another run was left by one that was killed while it listed.
    while first and content and content["run"] == first["run"]:
        shards += [Shard(*values) for values in content["shards"]]
        if content["last"]:
            return Manifest(shards, content["ignored"], content["source"])
        part += 1
        content = _read_part(folder, part)
    return None


def read_rows(folder: Folder, shard: Shard) -> pa.Table:
    """Reads a shard's manifest rows."""
    with folder.open(_part_name(shard.part)) as file:
        return pq.ParquetFile(file).read_row_group(shard.row_group)


def copy_manifest(source: Folder, target: Folder, manifest: Manifest) -> None:
    """Copies a manifest as it is, so that shards keep their numbers and images; its last part is copied last."""
    for part in range(manifest.shards[-1].part + 1):
        with (
            source.open(_part_name(part)) as file,
            target.publish(_part_name(part)) as scratch,
            open(scratch, "wb") as out,
        ):
            out.write(file.read())


def difference(folder: Folder, manifest: Manifest, images: Iterable[Image]) -> str:
    """Says how a new listing differs from the manifest, as words; empty where it does not.

    Both are in the same order, so they are compared as they stream.
    """
    added = changed = gone = 0
    old = (row for shard in manifest.shards for row in read_rows(folder, shard).to_pylist())
    new = iter(images)
    left, right = next(old, None), next(new, None)
    while left or right:
        before = path_bytes(left["path"]) if left else None
        after = path_bytes(right.path) if right else None
        if left and right and before == after:
            changed += (left["bytes"], left["mtime"]) != (right.bytes, right.mtime)
            left, right = next(old, None), next(new, None)
        elif after is None or (before is not None and before < after):
            gone, left = gone + 1, next(old, None)
        else:
            added, right = added + 1, next(new, None)
    counts = {"new": added, "changed": changed, "gone": gone}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


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


def _part_name(part: int) -> str:
    return f"{MANIFEST}/part-{part:06d}.parquet"


def _read_part(folder: Folder, part: int) -> dict[str, Any] | None:
    try:
        file = folder.open(_part_name(part))
    except FileNotFoundError:
        return None
    with file:
        try:
            return json.loads((pq.read_metadata(file).metadata or {})[_PART_KEY])
        except (OSError, pa.ArrowException, KeyError, ValueError):
            return None  # pyarrow tells of broken footers by most of these


def _check_is_ours(folder: Folder, parts: int, run: str) -> None:
    for part in range(parts):
        content = _read_part(folder, part)
        if content is None or content["run"] != run:
            raise InputError(
                f"{folder.url} is being written by another run: wait until it ends, or choose another folder."
            )


def _chunks(images: Iterable[Image], size: int) -> Iterator[list[Image]]:
    iterator = iter(images)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _table(shard: int, images: list[Image]) -> pa.Table:
    rows = [
        {"shard": shard, "path": image.path, "source": None, "offset": None}
        | {"bytes": image.bytes, "mtime": image.mtime, "attempt": 0}
        for image in images
    ]
    return pa.Table.from_pylist(rows, _SCHEMA)


def _inputs(rows: pa.Table) -> str:
    """SHA-256 of manifest rows, less the shard's number, which its file's name says."""
    columns = [rows[name].cast(pa.string()).to_pylist() for name in _SCHEMA.names if name != "shard"]
    return hashlib.sha256(json.dumps(columns).encode()).hexdigest()
