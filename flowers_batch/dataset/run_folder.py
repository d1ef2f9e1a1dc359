"""A run's folder: `job.json`, `_SUCCESS`, and streaming reads of finished runs."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.format_version import FORMAT, in_current_format, with_format
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard_file import RowGroup, open_shard, read_shard, row_groups_of
from flowers_batch.dataset.tunings import Tunings, validated_tunings
from flowers_batch.errors import InputError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.storage.folder import Folder, PathOrUrl, open_folder

JOB, SUCCESS = "job.json", "_SUCCESS"
_LIBRARIES = ("flowers-batch", "ray", "tensorflow", "keras", "numpy", "pyarrow", "pillow", "simplejpeg")


@dataclass(frozen=True)
class Job:
    """What made a run's folder: `job.json`.

    Attributes:
        kind: `CODES` or `PREDICTIONS`.
        images: An absolute path or a URL.
        fingerprint: What the rows depend on.
        weights: The weights' name.
        root: What the paths of a list are relative to; None: the folder of the list.
        model: The model folder; None for codes.
        codes: The codes folder that predictions were made from; None where they were made from images.
        versions: Versions of Python and of the libraries.
        format: The format number of the file that it was read from.
        tuned_on: Of codes: what the network was fine-tuned on; empty if it was not.
    """

    kind: str
    images: str
    fingerprint: Fingerprint
    weights: str
    root: str | None = None
    model: str | None = None
    codes: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    tuned_on: Tunings = ()


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that rows depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


def write_job(folder: Folder, job: Job) -> None:
    """Publish `job.json`."""
    content = {
        "kind": job.kind,
        "images": job.images,
        "fingerprint": job.fingerprint.to_json(),
        "weights": job.weights,
        "root": job.root,
        "model": job.model,
        "codes": job.codes,
        "tuned_on": job.tuned_on,
        "versions": job.versions,
        "digest": job.fingerprint.digest,
    }
    folder.write_json(JOB, with_format(content))


def read_job(folder: Folder) -> Job | None:
    """Return the content of `job.json`, None without it; unknown fields are ignored, except in the fingerprint.

    Raises:
        InputError: It is damaged, or a newer version of flowers_batch wrote it.
    """
    try:
        content = folder.read_json(JOB)
    except FileNotFoundError:
        return None
    try:
        job = in_current_format(content, folder.url_of(JOB), formats_0_1.upgrade_job)
        return Job(
            kind=job["kind"],
            images=job["images"],
            fingerprint=Fingerprint.from_json(job["fingerprint"]),
            weights=job["weights"],
            root=job["root"],
            model=job["model"],
            codes=job["codes"],
            versions=job["versions"],
            format=content.get("format", 1),
            tuned_on=validated_tunings(job.get("tuned_on", ())),
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder.url_of(JOB)} is damaged ({error}): restore it, or begin in a new folder.") from None


def write_summary(folder: Folder, summary: dict[str, Any]) -> None:
    """Publish `_SUCCESS`."""
    folder.write_json(SUCCESS, with_format(summary))


def read_summary(folder: Folder) -> dict[str, Any]:
    """Return the content of `_SUCCESS`.

    Raises:
        FileNotFoundError: It does not exist: the run has not ended.
        InputError: It is damaged, or a newer version of flowers_batch wrote it.
    """
    url = folder.url_of(SUCCESS)
    try:
        summary = in_current_format(folder.read_json(SUCCESS), url, formats_0_1.upgrade_summary)
        if not isinstance(summary["shards"], int):
            raise TypeError("`shards` is not a number")
        return summary
    except (KeyError, TypeError) as error:
        raise InputError(f"{url} is damaged ({error}): delete it, and run the same command again.") from None


@dataclass(frozen=True)
class Run:
    """The folder of a finished run: every image is a row in it.

    Attributes:
        folder: The folder.
        job: The content of `job.json`.
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
        """The length of a code."""
        with open_shard(self.folder, CODES, 0) as file:
            return file.schema_arrow.field("code").type.list_size

    def row_groups(self) -> list[RowGroup]:
        """Return the row groups of the shards' files, in the manifest's order."""
        return [group for shard in range(self.shards) for group in row_groups_of(self.folder, self.job.kind, shard)]

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Stream rows in the manifest's order, a shard in memory at a time."""
        for number in range(self.shards):
            yield from read_shard(self.folder, self.job.kind, number, columns)


def open_run(where: PathOrUrl, kind: str) -> Run:
    """Return the run in a folder; it must be finished.

    Raises:
        InputError: It does not exist, contains something else, or its run has not ended.
    """
    folder = open_folder(where)
    job = read_job(folder)
    command = "encode" if kind == CODES else "predict"
    if job is None or job.kind != kind:
        raise InputError(f"{folder.url} is not a folder of {kind}: make one with `flowers-batch {command}`.")
    try:
        summary = read_summary(folder)
    except FileNotFoundError:
        raise InputError(
            f"{folder.url} is not finished: run the same `flowers-batch {command}` again, "
            "which resumes where it stopped."
        ) from None
    return Run(folder, job, summary)
