"""Metrics of a run that Ray exports to Prometheus."""

from __future__ import annotations

import socket
from typing import Any

from flowers_batch.cluster.messages import ShardResult
from flowers_batch.devices import gpu_memory


class _Meter:
    """What is seen of a run from outside: Ray's exporter gives it to Prometheus (docs/monitoring.md)."""

    def __init__(self, run: str):
        from ray.util.metrics import Counter as Count
        from ray.util.metrics import Gauge

        def made(kind: Any, name: str, description: str, *tags: str) -> Any:
            metric = kind(f"flowers_batch_{name}", description, ("run", *tags))
            metric.set_default_tags({"run": run})
            return metric

        self._images = made(Count, "images", "Images of finished shards.", "status")
        self._seconds = made(Count, "stage_seconds", "Seconds of all actors in finished shards, by stage.", "stage")
        self.retries = made(Count, "retries", "Shards that were handed out again, since their actor died or stalled.")
        self.restarts = made(Count, "actor_restarts", "Actors that died or stalled.")
        self._done = made(Gauge, "images_done", "Images that are done, also those of shards that are not finished.")
        self._rate = made(Gauge, "images_per_second", "Images done, over the time since work began.")
        self._shards = made(Gauge, "shards", "Shards that wait, are out with actors, and are done.", "state")
        self._actors = made(Gauge, "actors", "Actors that were asked for, and that are at work.", "state")

    def count(self, done: ShardResult) -> None:
        """Counts a finished shard."""
        for status, images in (("ok", done.footer.ok), ("failed", done.footer.failed)):
            if images:
                self._images.inc(images, {"status": status})
        for stage, seconds in done.stages.items():
            if seconds > 0:
                self._seconds.inc(seconds, {"stage": stage})

    def show(self, images: int, seconds: float, shards: dict[str, int], actors: dict[str, int]) -> None:
        """Shows how it goes."""
        self._done.set(images)
        self._rate.set(images / seconds if seconds else 0.0)
        for gauge, states in ((self._shards, shards), (self._actors, actors)):
            for state, number in states.items():
                gauge.set(number, {"state": state})


class _GpuMemory:
    """The memory that an actor's network takes of its GPU, beside the run's other metrics."""

    def __init__(self, run: str, gpu: str, actor: str):
        from ray.util.metrics import Gauge

        tags = {"run": run, "host": socket.gethostname(), "gpu": gpu, "actor": actor}
        self._gauge = Gauge("flowers_batch_gpu_memory_bytes", "Memory of GPUs that networks take.", tuple(tags))
        self._gauge.set_default_tags(tags)

    def show(self) -> None:
        """Shows it."""
        self._gauge.set(gpu_memory())
