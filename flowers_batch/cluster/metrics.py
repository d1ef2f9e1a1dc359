"""Metrics of a run that Ray exports to Prometheus (docs/monitoring.md)."""

from __future__ import annotations

import socket
from typing import Any

from flowers_batch.cluster.messages import ShardResult
from flowers_batch.devices import gpu_memory
from flowers_batch.text import visible


class RunMetrics:
    """The driver's metrics of one run.

    Args:
        run: The run's folder, which labels them all.
    """

    def __init__(self, run: str):
        from ray.util.metrics import Counter, Gauge

        def create(kind: Any, name: str, description: str, *tags: str) -> Any:
            metric = kind(f"flowers_batch_{name}", description, ("run", *tags))
            metric.set_default_tags({"run": visible(run)})  # Prometheus' text format escapes line breaks only
            return metric

        self._images = create(Counter, "images", "Images in finished shards.", "status")
        self._seconds = create(Counter, "stage_seconds", "Seconds of all actors in finished shards.", "stage")
        self._retries = create(Counter, "retries", "Shards dispatched again because their actor died or stalled.")
        self._restarts = create(Counter, "actor_restarts", "Actors that died or stalled.")
        self._done = create(Gauge, "images_done", "Finished images, including those in unfinished shards.")
        self._rate = create(Gauge, "images_per_second", "Finished images per second since the first dispatch.")
        self._shards = create(Gauge, "shards", "Shards that wait, are in flight, or are done.", "state")
        self._actors = create(Gauge, "actors", "Actors that are pending, or running.", "state")

    def shard_finished(self, result: ShardResult) -> None:
        """Count a finished shard's images and seconds."""
        for status, images in (("ok", result.footer.ok), ("failed", result.footer.failed)):
            if images:
                self._images.inc(images, {"status": status})
        for stage, seconds in result.stages.items():
            if seconds > 0:
                self._seconds.inc(seconds, {"stage": stage})

    def actor_lost(self) -> None:
        """Count an actor that died or stalled."""
        self._restarts.inc()

    def shards_retried(self, shards: int) -> None:
        """Count shards that wait again because they lost their actor."""
        if shards:
            self._retries.inc(shards)

    def update(self, images: int, seconds: float, shards: dict[str, int], actors: dict[str, int]) -> None:
        """Set the gauges.

        Args:
            images: Finished images.
            seconds: Since the first dispatch of a shard.
            shards: How many, by state.
            actors: How many, by state.
        """
        self._done.set(images)
        self._rate.set(images / seconds if seconds else 0.0)
        for gauge, states in ((self._shards, shards), (self._actors, actors)):
            for state, number in states.items():
                gauge.set(number, {"state": state})


class GpuMemoryMetric:
    """An actor's metric: the GPU memory that its network uses.

    Args:
        run: The run's folder.
        gpu: The GPU, as Ray numbers it.
        actor: The actor, as Ray names it.
    """

    def __init__(self, run: str, gpu: str, actor: str):
        from ray.util.metrics import Gauge

        tags = {"run": visible(run), "host": socket.gethostname(), "gpu": gpu, "actor": actor}
        self._gauge = Gauge("flowers_batch_gpu_memory_bytes", "GPU memory used by networks.", tuple(tags))
        self._gauge.set_default_tags(tags)

    def update(self) -> None:
        """Set it to the memory in use now."""
        self._gauge.set(gpu_memory())
