"""A finished run: its summary, `_SUCCESS`, and streaming reads of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.following import follow
from flowers_batch.dataset.format_version import in_current_format, with_format
from flowers_batch.dataset.job import JOB, Job, read_job
from flowers_batch.dataset.manifest import Manifest, read_manifest
from flowers_batch.dataset.schema import CODES, COMMANDS
from flowers_batch.dataset.shard_file import shard_name
from flowers_batch.dataset.shard_reading import open_shard, read_shard
from flowers_batch.errors import InputError
from flowers_batch.json_values import check_shape
from flowers_batch.sources.left_out import LEFT_OUT_SHAPE
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.json_files import read_json, write_json
from flowers_batch.storage.opening import PathOrUrl, open_folder

SUCCESS = "_SUCCESS"

_SUMMARY_SHAPE = {  # what is read of it: `runs.summary.Summary` documents the fields
    "shards": int,
    "images": int,
    "ok": int,
    "failed": int,
    **LEFT_OUT_SHAPE,
    "duplicates": int,
    "changes": {str: int},
    "resumed": int,
    "seconds": float,
    "images_per_second": float,
    "stage_rates": {str: (float, None)},
    "stage_shares": {str: float},
    "reasons": {str: int},
    "actors": [[(str, [str])]],
    "deaths": int,
    "stalls": int,
    "notes": [str],
}


def write_summary(folder: Folder, summary: dict[str, Any]) -> None:
    """Publish `_SUCCESS`."""
    write_json(folder, SUCCESS, with_format(summary))


def read_summary(folder: Folder) -> dict[str, Any]:
    """Return the content of `_SUCCESS`.

    Raises:
        FileNotFoundError: It does not exist: the run has not ended.
        InputError: It is damaged, or a newer version of flowers_batch wrote it.
    """
    url = folder.url_of(SUCCESS)
    try:
        summary = in_current_format(read_json(folder, SUCCESS), url, formats_0_1.upgrade_summary)
        check_shape(summary, _SUMMARY_SHAPE)
        return summary
    except TypeError as error:
        raise InputError(f"{url} is damaged ({error}): delete it, and run the same command again.") from None


@dataclass(frozen=True)
class RowGroup:
    """A row group of a shard's file: its number, and how many rows it has."""

    shard: int
    number: int
    rows: int


@dataclass(frozen=True)
class Run:
    """The folder of a finished run: every image is a row in it.

    Attributes:
        folder: The folder.
        job: The content of `job.json`.
        summary: The content of `_SUCCESS`.
        manifest: Its shards, by which each file is checked when it is opened.
        given: Where the user says that something is, by the name of the job's field; None is where the job says.
    """

    folder: Folder
    job: Job
    summary: dict[str, Any]
    manifest: Manifest
    given: Mapping[str, PathOrUrl | None] = field(default_factory=dict)

    @property
    def shards(self) -> int:
        """How many shards it has."""
        return len(self.manifest.shards)

    @cached_property
    def code_width(self) -> int:
        """The length of a code."""
        with self.open_shard(0) as file:
            return file.schema_arrow.field("code").type.list_size

    @property
    def photos(self) -> tuple[str, str | None]:
        """Where its photos are, and their `root`, as `open_source` takes both.

        Raises:
            InputError: `job.json` names a place that may not be followed (`dataset.following`).
        """
        return self.place("images"), self.place("root")

    def place(self, name: str) -> Any:
        """Return the place in a field of the job, or what the user says instead; None if there is none.

        Raises:
            InputError: `job.json` names a place that may not be followed (`dataset.following`).
        """
        return follow(self.folder, JOB, name, getattr(self.job, name), self.given.get(name))

    def row_groups(self) -> list[RowGroup]:
        """Return the row groups of the shards' files, in the manifest's order.

        Raises:
            InputError: A file is not what the manifest and the other files say.
        """
        return [group for shard in range(self.shards) for group in self._row_groups(shard)]

    def _row_groups(self, shard: int) -> list[RowGroup]:
        with self.open_shard(shard) as file:
            code = file.schema_arrow.types[-1]
            if self.job.kind == CODES and code.list_size != self.code_width:
                raise InputError(
                    f"Codes in {self.folder.url_of(shard_name(CODES, shard))} have {code.list_size} values, and those "
                    f"of the first shard {self.code_width}: delete it, and run the same command again."
                )
            metadata = file.metadata
            return [
                RowGroup(shard, number, metadata.row_group(number).num_rows) for number in range(file.num_row_groups)
            ]

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Stream rows in the manifest's order, a row group in memory at a time."""
        for number in range(self.shards):
            yield from self.read_shard(number, columns)

    def read_shard(
        self, number: int, columns: Sequence[str] | None = None, group: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream rows of a shard: see `shard_reading.read_shard`."""
        shard, digest = self.manifest.shards[number], self.job.fingerprint.digest
        return read_shard(self.folder, self.job.kind, shard, digest, columns, group)

    @contextmanager
    def open_shard(self, number: int) -> Iterator[pq.ParquetFile]:
        """Open a shard's file until the block ends: see `shard_reading.open_shard`."""
        shard, digest = self.manifest.shards[number], self.job.fingerprint.digest
        with open_shard(self.folder, self.job.kind, shard, digest) as file:
            yield file


def open_run(where: PathOrUrl, kind: str, given: Mapping[str, PathOrUrl | None] = MappingProxyType({})) -> Run:
    """Return the run in a folder; it must be finished.

    Args:
        where: The folder.
        kind: `CODES`, `PREDICTIONS` or `PIXELS`.
        given: As for `Run`.

    Raises:
        InputError: It does not exist, contains something else, or its run has not ended.
    """
    folder = open_folder(where)
    job = read_job(folder)
    command = COMMANDS[kind]
    if job is None or job.kind != kind:
        raise InputError(f"{folder.url} is not a folder of {kind}: make one with `flowers-batch {command}`.")
    try:
        summary = read_summary(folder)
    except FileNotFoundError:
        raise InputError(
            f"{folder.url} is not finished: run the same `flowers-batch {command}` again, "
            "which resumes where it stopped."
        ) from None
    manifest = read_manifest(folder)
    if manifest is None or not manifest.is_complete:
        raise InputError(f"The manifest of {folder.url} is incomplete: run the same `flowers-batch {command}` again.")
    if (len(manifest.shards), manifest.images) != (summary["shards"], summary["images"]):
        raise InputError(
            f"{folder.url_of(SUCCESS)} has other counts than the manifest: delete it, and run the same "
            f"`flowers-batch {command}` again."
        )
    return Run(folder, job, summary, manifest, given)
