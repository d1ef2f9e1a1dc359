"""Shrunk photos, a finished folder of pixels, as a source of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowers_batch.dataset.manifest import read_rows
from flowers_batch.dataset.manifest_part import MISSING
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import FAILED, PIXELS
from flowers_batch.dataset.shard_file import read_footer, shard_name
from flowers_batch.decoding.outputs import bitmap
from flowers_batch.decoding.pixels import SIDE
from flowers_batch.errors import InputError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.sources.images import IMAGES, PATH, Image, batches_of, paths_bytes
from flowers_batch.sources.left_out import LeftOut, start_counting
from flowers_batch.sources.reading import ReadError, read_bytes
from flowers_batch.sources.relative_paths import foreign_path
from flowers_batch.sources.skipping import SKIP_SYSTEM, Skipping
from flowers_batch.storage.folder import Folder

NO_LONGER = "The folder of shrunk photos no longer has it where it was listed: list them again."
_ROWS_AT_ONCE = 8  # of a row group in which one photo is looked for


@dataclass
class ShrunkSource:
    """The photos of a folder of pixels. A photo is at a row of a shard's file.

    In a listing, `source` is the shard's file, and `offset` the row: `~row` of a photo that failed, so that one that
    succeeds later has changed.

    Attributes:
        run: The folder.
        skipping: Which photos are left out.
        left_out: What the last listing left out.
        repeated: Always 0.
    """

    run: Run
    skipping: Skipping = SKIP_SYSTEM
    left_out: LeftOut = field(default_factory=LeftOut, init=False)
    repeated: int = field(default=0, init=False)
    root: ClassVar[None] = None
    found_by_path: ClassVar[bool] = False

    @property
    def url(self) -> str:
        """The folder's absolute path, or its URL."""
        return self.folder.url

    @property
    def folder(self) -> Folder:
        """The folder."""
        return self.run.folder

    @property
    def made(self) -> Fingerprint:
        """What the pixels depend on."""
        return self.run.job.fingerprint

    @property
    def in_path_order(self) -> bool:
        """Whether the photos are listed in the order of their paths' bytes."""
        manifest = self.run.manifest
        return manifest.in_path_order and len(manifest.first_shards) == 1

    @property
    def may_read_stores(self) -> bool:
        """Whether the folder is in a store."""
        return not self.folder.is_local

    def is_in_store(self, image: Image) -> bool:
        """Return whether a photo is read from a store: all are, or none."""
        return self.may_read_stores

    def local_path(self, image: Image) -> None:
        """Return None: no photo is a file of its own."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """List the photos, shard by shard: columns `IMAGES`. Those that were missing when they were shrunk are not.

        Raises:
            InputError: A shard, or its rows in the manifest, cannot be read.
        """
        self.left_out = start_counting(self.skipping)
        for number in range(self.run.shards):
            rows = self._listed(number)
            yield from self._without_excluded(rows).combine_chunks().to_batches()

    def _listed(self, number: int) -> pa.Table:
        """Return a shard's photos as a listing."""
        shard = self.run.manifest.shards[number]
        rows = read_rows(self.folder, shard)
        offsets = np.arange(len(rows))
        footer = read_footer(self.folder, PIXELS, number)
        if footer is None or footer.failed:
            statuses = pa.chunked_array([batch["status"] for batch in self.run.read_shard(number, ["status"])])
            failed = pc.equal(statuses, FAILED).to_numpy()
            offsets = np.where(failed, ~offsets, offsets)
        columns = {name: rows[name] for name in IMAGES.names}
        columns |= {"source": pa.repeat(shard_name(PIXELS, number), len(rows)), "offset": pa.array(offsets)}
        return pa.table(columns, IMAGES).filter(pc.not_equal(rows["action"], MISSING))

    def _without_excluded(self, rows: pa.Table) -> pa.Table:
        if not self.skipping.exclude:
            return rows
        kinds = [self.skipping.kind_within(path) for path in paths_bytes(rows[PATH].combine_chunks()).to_pylist()]
        self.left_out.skipped.update(filter(None, kinds))
        return rows.filter(pa.array([kind is None for kind in kinds], pa.bool_()))

    def owns(self, rows: pa.Table | pa.RecordBatch) -> pa.Array | pa.ChunkedArray:
        """Return whether images of a manifest are in the folder's shards: bool [rows]."""
        files = rows["source"].unique()
        known = files.filter(pa.array([name in self._numbers for name in files.to_pylist()], pa.bool_()))
        return pc.and_(pc.is_in(rows["source"], known), pc.is_valid(rows["offset"]))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The shards by the names of their files."""
        return {shard_name(PIXELS, number): number for number in range(self.run.shards)}

    def places_of(self, rows: pa.RecordBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the shards that photos of a listing are in, and their rows in these: int64 [photos].

        Raises:
            InputError: A photo is in none of the folder's shards.
        """
        if not pc.all(self.owns(rows), min_count=0).as_py():
            raise foreign_path(rows.filter(pc.invert(self.owns(rows)))[PATH][0].as_py(), self.url)
        files, offsets = rows["source"].dictionary_encode(), rows["offset"].to_numpy()
        numbers = np.array([self._numbers[name] for name in files.dictionary.to_pylist()], np.int64)
        return numbers[files.indices.to_numpy()], np.where(offsets < 0, ~offsets, offsets)

    def read(self, image: Image) -> bytes:
        """Return a photo as an image file: its thumbnail or, without one, its pixels as a bitmap.

        Raises:
            ReadError: It failed when it was shrunk, or cannot be read.
            InputError: It is in none of the folder's shards.
            RunError: The folder no longer exists.
        """
        (rows,) = batches_of([image])
        (number,), (row,) = (each.tolist() for each in self.places_of(rows))
        return read_bytes(self.folder, lambda: self._read(number, row, image.path))

    def _read(self, number: int, row: int, path: str) -> bytes:
        try:
            with self.run.open_shard(number) as file:
                found = _find_row(file, row)
        except InputError as error:
            raise ReadError("unreadable", str(error)) from None
        if found is None or found["path"] != path:
            raise ReadError("missing", NO_LONGER)
        if thumbnail := found.get("thumbnail"):
            return thumbnail
        if pixels := found.get("pixels"):
            return bitmap(np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE, 3))
        raise ReadError(found["reason"] or "unreadable", found["message"] or "It has no pixels.")


def starts_of_groups(file: pq.ParquetFile) -> list[int]:
    """Return the first row of each row group of a file, and how many rows it has."""
    metadata = file.metadata
    return [0, *accumulate(metadata.row_group(number).num_rows for number in range(metadata.num_row_groups))]


def _find_row(file: pq.ParquetFile, row: int) -> dict[str, Any] | None:
    """Return what there is to show of a row; None if a file has fewer."""
    starts = starts_of_groups(file)
    group = int(np.searchsorted(starts, row, "right")) - 1
    if group == len(starts) - 1:
        return None
    picture = "thumbnail" if "thumbnail" in file.schema_arrow.names else "pixels"
    columns, left = ["path", "reason", "message", picture], row - starts[group]
    for batch in file.iter_batches(_ROWS_AT_ONCE, [group], columns, use_threads=False):
        if left < len(batch):
            return batch.slice(left, 1).to_pylist()[0]
        left -= len(batch)
    return None
