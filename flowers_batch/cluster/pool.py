"""The actors of a run: their creation, heartbeats and end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flowers_batch.cluster.actors import actor_environment
from flowers_batch.cluster.connection import living_nodes
from flowers_batch.cluster.messages import ActorInfo, Heartbeat, ShardJob
from flowers_batch.cluster.scaling import Resources, plan_actors
from flowers_batch.config import ClusterConfig
from flowers_batch.errors import RunError
from flowers_batch.fingerprint import Fingerprint

SHARDS_PER_ACTOR = 2  # in flight: images of one are read and decoded while those of the other are computed
_IDLE_SECONDS = 30.0  # an actor that has been idle for this long is released, so that its node can be too


@dataclass(eq=False)
class PooledActor:
    """The driver's view of an actor.

    Attributes:
        handle: Ray's handle.
        resources: What was requested for it.
        next_heartbeat: Ray's reference of the answer to the last call of `heartbeat`.
        heartbeat: Its last heartbeat; None until it has its resources.
        seconds_without_progress: For how long its heartbeats have been equal, or it has had no work.
        started: When it became ready, by `time.monotonic`; None until then.
        last_active: When it last got or finished work.
    """

    handle: Any
    resources: Resources
    next_heartbeat: Any
    heartbeat: Heartbeat | None = None
    seconds_without_progress: float = 0.0
    started: float | None = None
    last_active: float = field(default_factory=time.monotonic)

    @property
    def node(self) -> str | None:
        """The node that it runs on; None if that is not known yet."""
        return self.heartbeat.node if self.heartbeat else None

    def receive(self, heartbeat: Heartbeat) -> None:
        """Store a heartbeat, and reset the seconds without progress where it shows some."""
        if heartbeat != self.heartbeat:
            self.heartbeat, self.seconds_without_progress = heartbeat, 0.0


class ActorPool:
    """The actors of one run.

    Args:
        job: What they do.
        cluster: How many there should be, and for how long one may make no progress.
        can_scale: Whether nodes may join the cluster.
        on_first_fingerprint: Called with the fingerprint of the first actor that is ready; raises to refuse it.

    Attributes:
        actors: All that were requested and neither died nor were released, placeholders included.
        stall_timeout: Seconds without progress after which one has stalled.
    """

    def __init__(
        self,
        job: ShardJob,
        cluster: ClusterConfig,
        can_scale: bool,
        on_first_fingerprint: Callable[[Fingerprint], None],
    ):
        self.actors: list[PooledActor] = []
        self.stall_timeout = cluster.stall_timeout
        self._job, self._wanted, self._can_scale = job, cluster.actors, can_scale
        self._on_first_fingerprint = on_first_fingerprint
        self._fingerprint: Fingerprint | None = None

    @property
    def ready(self) -> list[PooledActor]:
        """The actors that take shards."""
        return [actor for actor in self.actors if actor.started is not None]

    def plan(self, shards: int) -> tuple[list[Resources], list[PooledActor]]:
        """Return the actors to request now, and those to give up.

        Args:
            shards: How many are unfinished.
        """
        gpu = self._job.factory.wants_gpu
        return plan_actors(living_nodes(), self.actors, self._wanted, gpu, self._can_scale, shards)

    def unneeded(self, busy: set[PooledActor]) -> list[PooledActor]:
        """Return the actors to release when no shards wait, so that their nodes may go and no others come.

        Args:
            busy: Those that work on shards.
        """
        if not self._can_scale:
            return []
        now = time.monotonic()
        idle = [actor for actor in self.actors if actor not in busy]
        kept = [actor for actor in idle if actor.started is not None][:1]  # for the shard of one that dies or stalls
        return [
            actor
            for actor in idle
            if actor.heartbeat is None or (actor not in kept and now - actor.last_active > _IDLE_SECONDS)
        ]

    def add(self, resources: Resources) -> PooledActor:
        """Request an actor, and return it; it takes shards once it was accepted."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from flowers_batch.cluster import remote_actors

        options: dict[str, Any] = {
            "num_gpus": resources.gpus,
            "num_cpus": resources.cpus,
            "max_concurrency": SHARDS_PER_ACTOR,
            "runtime_env": {"env_vars": actor_environment(resources)},
        }
        if resources.node:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(resources.node, soft=True)
        wrap: Any = ray.remote(concurrency_groups={remote_actors.HEARTBEAT_GROUP: 1})  # type: ignore[call-overload]
        handle = wrap(remote_actors.RemoteShardActor).options(**options).remote(self._job, resources)
        actor = PooledActor(handle, resources, handle.heartbeat.remote())
        self.actors.append(actor)
        return actor

    def remove(self, actor: PooledActor) -> None:
        """End an actor, even one that is stopped or stuck in foreign code."""
        import ray

        self.actors.remove(actor)
        with contextlib.suppress(Exception):
            ray.kill(actor.handle)

    def accept(self, actor: PooledActor, info: ActorInfo) -> bool:
        """Accept an actor that is ready if its rows would equal those of the first one; it takes shards then.

        Actors that start after the first compute in the precision of the first.

        Returns:
            Whether it was accepted. Otherwise it must be replaced: it computes in another precision.

        Raises:
            RunError: Its rows would differ in anything but the precision.
        """
        if self._fingerprint is None:
            self._on_first_fingerprint(info.fingerprint)
            self._fingerprint = info.fingerprint
            self._job = self._job.with_precision(info.fingerprint.precision)
        elif info.fingerprint != self._fingerprint:
            if info.fingerprint.precision == self._fingerprint.precision:
                raise RunError(
                    f"The fingerprint of the actor on {info.host} differs from the first actor's "
                    f"({info.fingerprint.differences(self._fingerprint)}). Install the same files on all nodes."
                )
            return False
        actor.started = actor.last_active = time.monotonic()
        return True

    def poll(self, seconds: float) -> None:
        """Take the heartbeats that have come, and call for the next ones.

        Args:
            seconds: How much time counts as passed since the last poll.
        """
        import ray

        pending = [actor.next_heartbeat for actor in self.actors]
        answered = set(ray.wait(pending, num_returns=len(pending), timeout=0)[0])
        for actor in list(self.actors):
            actor.seconds_without_progress += seconds
            if actor.next_heartbeat not in answered:
                continue
            try:
                actor.receive(ray.get(actor.next_heartbeat))
            except ray.exceptions.RayError:
                if actor.resources.is_placeholder:  # its death is seen nowhere else, since it has no tasks
                    self.remove(actor)
                    continue
            actor.next_heartbeat = actor.handle.heartbeat.remote()

    def stalled(self, busy: set[PooledActor]) -> list[PooledActor]:
        """Return the actors that have made no progress for too long.

        Args:
            busy: Those that start, or work on shards.
        """
        return [
            actor
            for actor in self.actors
            if actor in busy and actor.heartbeat and actor.seconds_without_progress > self.stall_timeout
        ]
