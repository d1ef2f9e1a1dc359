"""What runs inside a Ray actor: a worker on shards, reporting its progress."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.cluster.messages import ActorInfo, Heartbeat, ShardResult
from flowers_batch.cluster.metrics import _GpuMemory
from flowers_batch.cluster.scaling import Resources
from flowers_batch.config import WEIGHTS_ENVIRONMENT
from flowers_batch.dataset.completeness import reusable_rows
from flowers_batch.dataset.manifest import read_rows
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer, interleave, write_shard
from flowers_batch.encoding.worker import Quarantined, Worker
from flowers_batch.errors import RunError, first_line
from flowers_batch.sources.images import Image, images_of
from flowers_batch.storage.folder import open_folder


class Factory(Protocol):
    """Makes a worker inside an actor: `encoder.EncoderFactory` or `encoder.LabellerFactory`."""

    @property
    def wants_gpu(self) -> bool:
        """Whether what it makes computes on a GPU where the cluster has one."""

    def __call__(self, threads: int, gpu: bool) -> Worker:
        """Makes a worker that uses so many threads, and a GPU or none."""

    def with_precision(self, precision: str) -> Factory:
        """The same factory, told what to compute in."""

    def find_poison_images(
        self, images: Sequence[Image], seconds: float, progress: Callable[[int], None]
    ) -> Quarantined:
        """Finds the images that end the process that works on them, or keep it for more than so many seconds."""


class ShardActor:
    """What runs in a Ray actor: a worker, and the folder that its shards are written to. Knows no Ray itself.

    Two shards may be run at once, so that the second is read and decoded while the first is computed and written.
    """

    def __init__(self, factory: Factory, url: str, kind: str, threads: int, gpus: tuple[str, ...], node: str):
        self._factory, self._threads, self._gpus = factory, threads, gpus
        self._folder, self._kind, self._node = open_folder(url), kind, node
        self._steps, self._rows = itertools.count(), dict[int, tuple[int, int]]()
        self._step = 0

    def start(self) -> ActorInfo:
        """Makes the worker, which may take a while, and tells what its rows will depend on."""
        self._worker = self._factory(self._threads, bool(self._gpus))
        return ActorInfo(self._worker.fingerprint, socket.gethostname(), self._gpus)

    def run(self, shard: Shard, quarantined: Quarantined) -> ShardResult:
        """Works on a shard and publishes it, without touching the condemned images."""
        worker, schema, stages = self._worker, self._worker.schema, dict[str, float]()
        expected = Footer(worker.fingerprint.digest, shard.number, shard.inputs_digest, 0, 0)
        rows = read_rows(self._folder, shard)
        kept: pa.Array = pa.array([], pa.string())
        if worker.can_reuse_rows:
            kept, old = reusable_rows(self._folder, self._kind, shard, schema, expected.fingerprint)
        if len(kept):
            is_kept = pc.is_in(rows["path"], kept)
            new = worker.batches(shard.number, rows.filter(pc.invert(is_kept)), stages, quarantined)
            batches = interleave(old, new, is_kept.to_numpy(), schema)
        else:
            batches = worker.batches(shard.number, rows, stages, quarantined)
        begun, waited = time.perf_counter(), [0.0]
        counted = self._counted(shard, batches, waited)
        footer = write_shard(self._folder, self._kind, schema, counted, expected)
        stages["write"] = time.perf_counter() - begun - waited[0]
        self._rows.pop(shard.number)
        return ShardResult(footer, stages, len(kept))

    def inspect(self, shard: Shard, seconds: float) -> Quarantined:
        """Finds a shard's images that end a process, or keep it for more than so many seconds each."""
        self._advance()
        return self._factory.find_poison_images(
            images_of(read_rows(self._folder, shard)), seconds, lambda done: self._advance()
        )

    def _counted(
        self, shard: Shard, batches: Iterator[pa.RecordBatch], waited: list[float]
    ) -> Iterator[pa.RecordBatch]:
        """Counts rows, and the seconds for which they were waited for; refuses to end with too few or too many."""
        done = failed = 0
        while True:
            self._rows[shard.number] = done, failed
            self._advance()
            begun = time.perf_counter()
            batch = next(batches, None)
            waited[0] += time.perf_counter() - begun
            if batch is None:
                break
            done += len(batch)
            failed += len(batch) - batch["reason"].null_count
            yield batch
        if done != shard.images:
            raise RunError(f"Shard {shard.number} has {shard.images} images, and {done} rows came out.")

    def _advance(self) -> None:
        self._step = next(self._steps)

    def heartbeat(self) -> Heartbeat:
        """How far it is; called while the other methods run."""
        if not hasattr(self, "_worker"):
            return Heartbeat(self._node, self._step)
        return Heartbeat(self._node, self._step + self._worker.images_seen, self._rows.copy())


class _RemoteShardActor:
    """`ShardActor`, told by Ray what it was given; its log has a line of JSON for each thing that befalls a shard."""

    def __init__(self, factory: Factory, url: str, kind: str, resources: Resources):
        import ray

        context = ray.get_runtime_context()
        gpus, here = tuple(context.get_accelerator_ids().get("GPU", ())), context.get_node_id()
        threads = resources.cpus
        if gpus:
            node = next(node for node in ray.nodes() if node["NodeID"] == here)["Resources"]
            threads = max(1, int(node.get("CPU", 1) // (node["GPU"] * resources.sharing)))
        self._actor = ShardActor(factory, url, kind, threads, gpus, here)
        self._memory, self._is_started = _GpuMemory(url, gpus[0], str(context.get_actor_id())) if gpus else None, False

    def start(self) -> ActorInfo:
        started = self._actor.start()
        self._is_started = True  # TensorFlow is ready: it must not be asked for anything before
        return started

    def run(self, shard: Shard, quarantined: Quarantined, attempt: int) -> ShardResult:
        begun = time.monotonic()
        _log("begun", shard, attempt=attempt, images=shard.images, quarantined=len(quarantined))
        try:
            done = self._actor.run(shard, quarantined)
        except Exception as error:
            _log("failed", shard, attempt=attempt, error=first_line(error))
            raise
        seconds = {"seconds": time.monotonic() - begun} | done.stages
        counts = {"ok": done.footer.ok, "failed": done.footer.failed, "carried": done.carried}
        _log("done", shard, attempt=attempt, **counts, **{name: round(value, 3) for name, value in seconds.items()})
        return done

    def inspect(self, shard: Shard, seconds: float) -> Quarantined:
        _log("inspected", shard, attempt=0, images=shard.images)
        return self._actor.inspect(shard, seconds)

    def heartbeat(self) -> Heartbeat:
        if self._memory and self._is_started:
            with contextlib.suppress(Exception):  # no work ends for want of a figure
                self._memory.show()
        return self._actor.heartbeat()

    heartbeat.__ray_concurrency_group__ = "heartbeat"  # type: ignore[attr-defined]


def _log(event: str, shard: Shard, **more: Any) -> None:
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, "shard": shard.number} | more
    sys.stderr.write(json.dumps(line) + "\n")  # in one piece: `print` lets another shard's line in before the line ends
    sys.stderr.flush()


def _actor_environment(resources: Resources) -> dict[str, str]:
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    if weights := os.environ.get(WEIGHTS_ENVIRONMENT):
        environment[WEIGHTS_ENVIRONMENT] = weights
    if not resources.gpus:
        # An actor that asked for no GPU sees every GPU of its node otherwise.
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment
