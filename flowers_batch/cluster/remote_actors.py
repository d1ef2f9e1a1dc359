"""The classes that Ray turns into actors. Imports Ray, so it is itself imported only once Ray is needed."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import ray

from flowers_batch.cluster.actors import ShardActor, log_event
from flowers_batch.cluster.messages import ActorInfo, Heartbeat, ShardJob, ShardResult
from flowers_batch.cluster.metrics import GpuMemoryMetric
from flowers_batch.cluster.scaling import Resources
from flowers_batch.dataset.shard import Shard
from flowers_batch.errors import first_line
from flowers_batch.progress import Progress
from flowers_batch.storage.scratch import sweep_scratch_folders

HEARTBEAT_GROUP = "heartbeat"  # a thread of its own, so that heartbeats are answered while the actor works


class RemoteShardActor:
    """A `ShardActor` with what Ray gave it; logs a line of JSON for each event of a shard.

    Args:
        job: What to do.
        resources: What was requested for the actor.
    """

    def __init__(self, job: ShardJob, resources: Resources):
        context = ray.get_runtime_context()
        gpus, node = _own_gpus(), context.get_node_id()
        self._actor = ShardActor(job, _threads(resources, gpus), gpus, node)
        self._memory = GpuMemoryMetric(job.url, gpus[0], str(context.get_actor_id())) if gpus else None
        self._is_started = False

    def start(self) -> ActorInfo:
        """Make the worker, and return what its rows depend on."""
        info = self._actor.start()
        self._is_started = True
        return info

    def run(self, shard: Shard, attempt: int) -> ShardResult:
        """Work on a shard.

        Args:
            shard: Which.
            attempt: How often it has been dispatched.

        Returns:
            Its footer, and the seconds spent in each stage.
        """
        started = time.monotonic()
        log_event("started", shard, attempt=attempt, images=shard.images)
        try:
            result = self._actor.run(shard)
        except Exception as error:
            log_event("failed", shard, attempt=attempt, error=first_line(error))
            raise
        seconds = {"seconds": time.monotonic() - started} | result.stages
        rounded = {name: round(value, 3) for name, value in seconds.items()}
        counts = {"ok": result.footer.ok, "failed": result.footer.failed, "reused": result.reused}
        log_event("done", shard, attempt=attempt, **counts, **rounded)
        return result

    @ray.method(concurrency_group=HEARTBEAT_GROUP)
    def heartbeat(self) -> Heartbeat:
        """Return the progress so far, and update the metric."""
        if self._memory and self._is_started:  # before that, asking TensorFlow would initialize it with its defaults
            with contextlib.suppress(Exception):  # a missing metric must not end the work
                self._memory.update()
        return self._actor.heartbeat()


class RemoteSingleActor:
    """Calls a function with all GPUs and cores of its node, and keeps what the function reports."""

    def __init__(self) -> None:
        self._messages: list[str] = []
        self._latest = ""

    def run(self, job: Any) -> Any:
        """Call a `ResumableJob`, and return its result; first delete what killed actors left on this node."""
        sweep_scratch_folders()
        return job(int(_own_node()["Resources"].get("CPU", 1)), len(_own_gpus()), self)

    def message(self, sentence: str) -> None:
        """Keep a message of the job."""
        self._messages.append(sentence)

    def update(self, progress: Progress) -> None:
        """Keep the job's latest update."""
        self._latest = progress.text

    @ray.method(concurrency_group=HEARTBEAT_GROUP)
    def heartbeat(self, received: int) -> tuple[list[str], str]:
        """Return the messages after the first `received` ones, and the latest update's text."""
        return self._messages[received:], self._latest


def _own_gpus() -> tuple[str, ...]:
    return tuple(ray.get_runtime_context().get_accelerator_ids().get("GPU", ()))


def _own_node() -> dict[str, Any]:
    here = ray.get_runtime_context().get_node_id()
    return next(node for node in ray.nodes() if node["NodeID"] == here)


def _threads(resources: Resources, gpus: tuple[str, ...]) -> int:
    """Return how many cores an actor may use: on a node with GPUs, as many as the node has per GPU."""
    if not gpus:
        return resources.cpus
    node = _own_node()["Resources"]
    return max(1, int(node.get("CPU", 1) // node["GPU"]))
