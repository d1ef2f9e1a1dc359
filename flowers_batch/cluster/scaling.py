"""Which actors a run requests from its cluster as nodes join and leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Resources:
    """The resources that an actor requests from its cluster.

    Attributes:
        gpus: Number of GPUs.
        cpus: Number of cores.
        node: The node that it should run on; None lets Ray choose.
        is_placeholder: Whether it does no work: it makes an autoscaler start a node, which then gets an actor of its
            own.
        actors_per_gpu: How many actors share each of the GPUs.
    """

    gpus: int
    cpus: int
    node: str | None = None
    is_placeholder: bool = False
    actors_per_gpu: int = 1

    @property
    def gpu_share(self) -> float:
        """The GPUs to request from Ray, rounded down to the four digits that it counts in.

        If they were rounded up, the last actor would not fit on the GPU.
        """
        return math.floor(10_000 * self.gpus / self.actors_per_gpu) / 10_000


@dataclass(frozen=True)
class RequestedActor:
    """An actor that was requested.

    Attributes:
        resources: What was requested for it.
        node: The node that it runs on; None while it waits for its resources.
    """

    resources: Resources
    node: str | None = None


def plan_actors(
    nodes: Sequence[dict[str, Any]],
    requested: Sequence[RequestedActor],
    wanted: int | None,
    gpu: bool,
    can_scale: bool,
    shards: int,
    actors_per_gpu: int = 1,
) -> tuple[list[Resources], list[int]]:
    """Decide by the cluster's resources which actors to request, and which pending ones to give up.

    If the cluster can scale and the number of actors is open, more actors are requested than fit, so that an
    autoscaler starts nodes: as many again as there are now, so that the cluster doubles.

    Args:
        nodes: The cluster's living nodes, as `ray.nodes()` describes them.
        requested: The actors that were requested before and live.
        wanted: The number of actors; None means `actors_per_gpu` per GPU or, without GPUs, one per node.
        gpu: Whether the actors can use GPUs.
        can_scale: Whether nodes may join.
        shards: How many shards are unfinished; more actors than these would be idle.
        actors_per_gpu: How many actors share a GPU.

    Returns:
        What to request now, and the indices in `requested` of actors to give up.
    """
    slots = sum(_slots(node["Resources"], actors_per_gpu) for node in nodes) if gpu else 0
    cores = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes}
    cores = {node: count for node, count in cores.items() if count}
    if not slots and not cores:
        return [] if requested else [Resources(0, 1, is_placeholder=True)], []
    if wanted or slots:
        each = (
            Resources(1, 1, actors_per_gpu=actors_per_gpu)
            if slots
            else Resources(0, _cores_per_actor(list(cores.values()), wanted or 1))
        )
        given_up = [index for index, actor in enumerate(requested) if actor.resources.is_placeholder]
        matching = sum(actor.resources.gpus == each.gpus and not actor.resources.is_placeholder for actor in requested)
        total = wanted or slots * (2 if can_scale else 1)
        return [each] * (min(total, shards) - matching), given_up
    return _one_per_node(cores, requested, can_scale, shards)


def _slots(resources: dict[str, Any], actors_per_gpu: int) -> int:
    """Return how many actors fit on a node's GPUs; each needs a core, too."""
    gpus = int(resources.get("GPU", 0))
    return max(gpus, min(gpus * actors_per_gpu, int(resources.get("CPU", 0))))


def _cores_per_actor(cores: list[int], wanted: int) -> int:
    """Return the cores for each of `wanted` actors; none spans two nodes."""
    return max(1, min(sum(cores) // wanted, max(cores)))


def _one_per_node(
    cores: dict[str, int], requested: Sequence[RequestedActor], can_scale: bool, shards: int
) -> tuple[list[Resources], list[int]]:
    """Plan one actor per node with all its cores, and placeholders for nodes that may join."""
    workers = [
        actor
        for actor in requested
        if not actor.resources.is_placeholder and (actor.node or actor.resources.node in cores or actor.resources.gpus)
    ]
    covered = {actor.node or actor.resources.node for actor in workers}
    to_request = [Resources(0, count, node) for node, count in cores.items() if node not in covered]
    to_request = to_request[: max(0, shards - len(workers))]
    # A placeholder must not take the resources of an actor that waits for its own node.
    is_settled = not to_request and all(actor.node or actor.resources.gpus for actor in workers)
    placeholders = [
        actor for actor in requested if actor.resources.is_placeholder and actor.node is None and is_settled
    ]
    if is_settled and can_scale:
        more = min(len(cores), shards - len(workers)) - len(placeholders)
        to_request = [Resources(0, min(cores.values()), is_placeholder=True)] * more
    kept = {id(actor) for actor in (*workers, *placeholders)}
    return to_request, [index for index, actor in enumerate(requested) if id(actor) not in kept]


def largest_node(nodes: Sequence[dict[str, Any]]) -> Resources | None:
    """Return all GPUs of the node with the most or, without GPUs, the most cores; None if there are neither.

    Args:
        nodes: The cluster's living nodes, as `ray.nodes()` describes them.
    """
    gpus = max((int(node["Resources"].get("GPU", 0)) for node in nodes), default=0)
    cpus = max((int(node["Resources"].get("CPU", 0)) for node in nodes), default=0)
    if gpus:
        return Resources(gpus, 1)
    return Resources(0, cpus) if cpus else None
