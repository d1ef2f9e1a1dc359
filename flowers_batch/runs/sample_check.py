"""Encoding a sample of a run's images again, and comparing it with the run's rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from flowers_batch.dataset.job import Job
from flowers_batch.dataset.manifest import Manifest, read_manifest, read_rows
from flowers_batch.dataset.manifest_part import MISSING
from flowers_batch.dataset.schema import FAILED
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import read_footer
from flowers_batch.dataset.shard_reading import read_shard
from flowers_batch.encoding.worker import Worker
from flowers_batch.errors import InputError
from flowers_batch.progress import Progress, Reporter
from flowers_batch.runs.reproduction import worker_of
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import open_folder

_SKIPPED_REASONS = ("too_large", "crashed_decoder", "timeout")  # dangerous to decode, or up to the run's own limits
# Relative L2 of a code or of pixels, and difference of a probability, that other hardware may cause: bfloat16 errs by
# 0.008.
_CODE_TOLERANCE, _LABEL_TOLERANCE = 0.02, 0.02


@dataclass
class SampleResult:
    """What encoding a sample again has shown.

    Attributes:
        images: Images that were read and encoded again.
        problems: One sentence per image whose row differs.
    """

    images: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SampleCheck:
    """Encodes a sample of a run's images again: a job for `cluster.single_actor.run_on_one_actor`.

    It changes settings of its process (threads, memory, standard error), so it must run in an actor.

    Attributes:
        url: The run's folder, which has a manifest.
        job: The run's job, with the places where its images, weights and model are.
        seed: Decides on the sample.
        size: Images in the sample, at most.
    """

    url: str
    job: Job
    seed: int
    size: int = 100

    def __call__(self, threads: int, gpus: int, reporter: Reporter) -> SampleResult:
        """Encode the sample and compare it with its rows; images that are missing by now are skipped.

        Raises:
            InputError: The images, the weights or the model are not available, or have changed.
        """
        folder = open_folder(self.url)
        job, manifest = self.job, read_manifest(folder)
        assert manifest  # the caller has read it
        worker = worker_of(job, threads, gpus, reporter)
        result = SampleResult()
        for shard, chosen in self._chosen(manifest):
            stored, rows = _comparable_rows(folder, job.kind, shard, chosen, worker)
            for batch in worker.batches(shard.number, rows, {}):
                result.images += len(batch)
                for row in batch.to_pylist():
                    if difference := describe_difference(stored[row["path"]], row):
                        result.problems.append(f"{row['path']} {difference}.")
                reporter.update(Progress(f"{result.images} images encoded again"))
        return result

    def _chosen(self, manifest: Manifest) -> Iterator[tuple[Shard, NDArray[np.int64]]]:
        """Yield shards and the positions in each that belong to the sample."""
        size = min(self.size, manifest.images)
        sample = np.sort(np.random.default_rng(self.seed).choice(manifest.images, size, replace=False))
        starts = np.cumsum([0, *(shard.images for shard in manifest.shards)])
        for shard, start, stop in zip(manifest.shards, starts[:-1], starts[1:], strict=True):
            chosen = sample[(sample >= start) & (sample < stop)] - start
            if len(chosen):
                yield shard, chosen


def _comparable_rows(
    folder: Folder, kind: str, shard: Shard, chosen: NDArray[np.int64], worker: Worker
) -> tuple[dict[str, dict[str, Any]], pa.Table]:
    """Return the stored rows of chosen images by path, and the manifest's rows to make them from.

    Both are empty where the shard's file cannot be read, which is reported elsewhere.
    """
    rows = read_rows(folder, shard).take(chosen)
    rows = rows.filter(pc.not_equal(rows["action"], MISSING))
    if read_footer(folder, kind, shard.number) is None:
        return {}, rows[:0]
    try:
        batches = read_shard(folder, kind, shard, worker.fingerprint.digest)
        chosen_ones = (batch.filter(pc.is_in(batch["path"], rows["path"].combine_chunks())) for batch in batches)
        stored = pa.Table.from_batches(chosen_ones, worker.schema)
    except (InputError, pa.ArrowInvalid):
        return {}, rows[:0]
    stored = stored.filter(pc.invert(pc.is_in(stored["reason"], pa.array(_SKIPPED_REASONS))))
    rows = rows.filter(pc.is_in(rows["path"], stored["path"]))
    return {row["path"]: row for row in stored.to_pylist()}, rows


def describe_difference(stored: dict[str, Any], now: dict[str, Any]) -> str:
    """Return how a stored row differs from the one that its image gives now, as words; empty where it does not."""
    if stored["sha256"] != now["sha256"]:
        return "has other bytes now than when its row was made: run the same command again"
    if stored["reason"] != now["reason"]:
        return f"fails with {now['reason']} now, and with {stored['reason']} in its row"
    if now["status"] == FAILED:
        return ""
    if "pixels" in now:
        pixels = [np.frombuffer(row["pixels"], np.uint8) for row in (stored, now)]
        return _difference("other pixels", pixels[0], pixels[1])
    return _difference("another code", stored["code"], now["code"]) if "code" in now else _label_difference(stored, now)


def _difference(what: str, stored: ArrayLike, now: ArrayLike) -> str:
    old, new = np.array(stored, np.float32), np.array(now, np.float32)
    error = np.linalg.norm(old - new) / (np.linalg.norm(new) or 1.0)
    return f"has {what} in its row than now (relative L2 {error:.2g})" if error > _CODE_TOLERANCE else ""


def _label_difference(stored: dict[str, Any], now: dict[str, Any]) -> str:
    old, new = (dict(zip(row["top_labels"], row["top_probabilities"], strict=True)) for row in (stored, now))
    moved = max((abs(old[label] - new[label]) for label in old.keys() & new.keys()), default=1.0)
    if moved <= _LABEL_TOLERANCE:
        return ""
    return f"is {now['prediction']} ({now['probability']:.0%} sure) now, and {stored['prediction']} in its row"
