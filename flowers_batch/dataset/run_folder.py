"""A run's folder: `job.json`, `_SUCCESS`, and streaming reads of finished runs."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard_file import RowGroup, _opened, _row_groups_of, read_shard
from flowers_batch.errors import InputError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.storage.folder import Folder, PathOrUrl, open_folder

JOB, SUCCESS = "job.json", "_SUCCESS"
_LIBRARIES = ("flowers-batch", "ray", "tensorflow", "keras", "numpy", "pyarrow", "pillow", "simplejpeg")


@dataclass(frozen=True)
class Job:
    """What a run's folder was made by: `job.json`.

    Attributes:
        kind: `CODES` or `PREDICTIONS`.
        images: Where the images lie: an absolute path or a URL.
        fingerprint: What the rows depend on.
        weights: The weights' name.
        root: What the paths of a list are relative to; None: the folder that the list lies in.
        model: The model folder; None for codes.
        codes: The codes folder that predictions were made from; None where they were made from images.
        versions: Versions of Python and of the libraries.
    """

    kind: str
    images: str
    fingerprint: Fingerprint
    weights: str
    root: str | None = None
    model: str | None = None
    codes: str | None = None
    versions: dict[str, str] = field(default_factory=dict)


def library_versions() -> dict[str, str]:
    """The versions of Python and of what decides on the numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


def write_job(folder: Folder, job: Job) -> None:
    """Publishes `job.json`."""
    folder.write_json(JOB, asdict(job) | {"digest": job.fingerprint.digest})


def read_job(folder: Folder) -> Job | None:
    """Reads `job.json`; None where there is none.

    Raises:
        InputError: It is not one of this version of flowers_batch.
    """
    try:
        content = folder.read_json(JOB)
    except FileNotFoundError:
        return None
    try:
        content.pop("digest")
        content["fingerprint"] = Fingerprint.from_json(content["fingerprint"])
        return Job(**content)
    except (KeyError, TypeError, AttributeError):
        raise InputError(
            f"{folder.url_of(JOB)} was not written by this version of flowers_batch: begin in a new folder."
        ) from None


@dataclass(frozen=True)
class Run:
    """A run's folder, finished: every image is a row in it.

    Attributes:
        folder: Where it lies.
        job: What made it.
        summary: The content of `_SUCCESS`.
    """

    folder: Folder
    job: Job
    summary: dict[str, Any]

    @property
    def shards(self) -> int:
        """How many shards it has."""
        return self.summary["shards"]

    @property
    def code_width(self) -> int:
        """Numbers in a code."""
        with _opened(self.folder, CODES, 0) as file:
            return file.schema_arrow.field("code").type.list_size

    def row_groups(self) -> list[RowGroup]:
        """The parts of the shards' files that can be read by themselves, in the manifest's order."""
        return [group for shard in range(self.shards) for group in _row_groups_of(self.folder, self.job.kind, shard)]

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Streams rows in the manifest's order, a shard in memory at a time."""
        for number in range(self.shards):
            yield from read_shard(self.folder, self.job.kind, number, columns)


def open_run(where: PathOrUrl, kind: str) -> Run:
    """Opens a finished run's folder.

    Raises:
        InputError: There is none, it holds something else, or its run has not ended.
    """
    folder = open_folder(where)
    job = read_job(folder)
    command = "encode" if kind == CODES else "predict"
    if job is None or job.kind != kind:
        raise InputError(f"{folder.url} is not a folder of {kind}: make one with `flowers-batch {command}`.")
    try:
        summary = folder.read_json(SUCCESS)
    except FileNotFoundError:
        raise InputError(
            f"{folder.url} is not finished: run the same `flowers-batch {command}` again, "
            "which goes on where it stopped."
        ) from None
    if not isinstance(summary, dict) or "shards" not in summary:
        raise InputError(f"{folder.url_of(SUCCESS)} is not what a run writes: delete it and run the command again.")
    return Run(folder, job, summary)
