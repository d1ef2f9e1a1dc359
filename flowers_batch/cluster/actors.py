"""The work inside an actor: a worker on shards, and its progress. Knows nothing of Ray; `remote_actors` wraps it."""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.cluster.messages import ActorInfo, Heartbeat, ShardJob, ShardResult
from flowers_batch.cluster.scaling import Resources
from flowers_batch.config import WEIGHTS_ENVIRONMENT
from flowers_batch.dataset.completeness import reusable_rows
from flowers_batch.dataset.manifest import read_rows
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer, interleave, rows_per_group, write_shard
from flowers_batch.encoding.worker import Worker
from flowers_batch.errors import RunError
from flowers_batch.storage.opening import open_folder
from flowers_batch.storage.scratch import sweep_scratch_folders


class ShardActor:
    """A worker, and the folder that its shards are written to.

    Two threads may call `run` at once, so that one shard is read and decoded while the other is computed and written.

    Args:
        job: What to do.
        threads: How many threads the worker may use.
        gpus: The GPUs that it may use, as Ray numbers them.
        node: The node that it runs on, as Ray names it.
    """

    def __init__(self, job: ShardJob, threads: int, gpus: tuple[str, ...], node: str):
        self._job, self._threads, self._gpus, self._node = job, threads, gpus, node
        self._folder = open_folder(job.url)
        self._progress = _Progress()
        self._worker: Worker | None = None

    def start(self) -> ActorInfo:
        """Make the worker, which may take a minute, and return what its rows depend on.

        First delete what killed actors left in this node's temporary folder.
        """
        sweep_scratch_folders()
        self._worker = self._job.factory(self._threads, bool(self._gpus), self._progress.advance)
        return ActorInfo(self._worker.fingerprint, socket.gethostname(), self._gpus)

    def run(self, shard: Shard) -> ShardResult:
        """Work on a shard and publish its file."""
        assert self._worker is not None
        schema, stages = self._worker.schema, dict[str, float]()
        expected = Footer(self._worker.fingerprint.digest, shard.number, shard.inputs_digest, 0, 0)
        batches, reused = self._batches(shard, expected.fingerprint, stages)
        started, waited = time.perf_counter(), [0.0]
        counted = self._counted(shard, batches, waited)
        footer = write_shard(self._folder, self._job.kind, schema, counted, expected)
        stages["write"] = time.perf_counter() - started - waited[0]
        self._progress.rows.pop(shard.number)
        return ShardResult(footer, stages, reused)

    def _batches(
        self, shard: Shard, fingerprint: str, stages: dict[str, float]
    ) -> tuple[Iterator[pa.RecordBatch], int]:
        """Return a shard's batches, and how many of their rows come from its previous file."""
        worker = self._worker
        assert worker is not None
        rows = read_rows(self._folder, shard)
        if worker.can_reuse_rows:
            reused, old = reusable_rows(self._folder, self._job.kind, shard, worker.schema, fingerprint)
            if len(reused):
                is_reused = pc.is_in(rows["path"], reused)
                new = worker.batches(shard.number, rows.filter(pc.invert(is_reused)), stages)
                at_once = rows_per_group(self._job.kind)
                return interleave(old, new, is_reused.to_numpy(), worker.schema, at_once), len(reused)
        return worker.batches(shard.number, rows, stages), 0

    def _counted(
        self, shard: Shard, batches: Iterator[pa.RecordBatch], waited: list[float]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the batches, counting rows and the seconds spent waiting for them.

        Raises:
            RunError: The number of rows differs from the number of images.
        """
        done = failed = 0
        while True:
            self._progress.rows[shard.number] = done, failed
            self._progress.advance()
            started = time.perf_counter()
            batch = next(batches, None)
            waited[0] += time.perf_counter() - started
            if batch is None:
                break
            done += len(batch)
            failed += len(batch) - batch["reason"].null_count
            yield batch
        if done != shard.images:
            raise RunError(f"Shard {shard.number} has {shard.images} images but got {done} rows.")

    def heartbeat(self) -> Heartbeat:
        """Return the progress so far; called while `start` or `run` do their work."""
        if self._worker is None:
            return Heartbeat(self._node, self._progress.step)
        return Heartbeat(self._node, self._progress.step + self._worker.steps, self._progress.rows.copy())


class _Progress:
    """The progress of an actor, which the threads of several shards advance."""

    def __init__(self) -> None:
        self._steps = itertools.count(1)
        self.step = 0
        self.rows: dict[int, tuple[int, int]] = {}

    def advance(self) -> None:
        self.step = next(self._steps)


def log_event(event: str, shard: Shard, **fields: Any) -> None:
    """Write one line of JSON to the actor's log.

    Args:
        event: `started`, `done` or `failed`.
        shard: Its shard.
        fields: What else the line says.
    """
    time_ = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": time_, "event": event, "shard": shard.number} | fields
    sys.stderr.write(json.dumps(line) + "\n")  # one call: with `print`, lines of two threads could mix
    sys.stderr.flush()


def actor_environment(resources: Resources) -> dict[str, str]:
    """Return the environment variables that an actor's process gets."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    if weights := os.environ.get(WEIGHTS_ENVIRONMENT):
        environment[WEIGHTS_ENVIRONMENT] = weights
    if not resources.gpus:
        # Otherwise an actor that requested no GPU sees every GPU of its node.
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment
