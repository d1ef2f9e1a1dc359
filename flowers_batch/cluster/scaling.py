"""Which actors a run requests from its cluster as nodes join and leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar


@dataclass(frozen=True)
class Resources:
    """The resources that an actor requests from its cluster.

    Attributes:
        gpus: Number of GPUs.
        cpus: Number of cores.
        node: The node that it should run on; None lets Ray choose.
        is_placeholder: Whether it does no work: it makes an autoscaler start a node, which then gets an actor of its
            own.
    """

    gpus: int
    cpus: int
    node: str | None = None
    is_placeholder: bool = False


class RequestedActor(Protocol):
    """An actor that was requested, such as a `PooledActor`.

    Attributes:
        resources: What was requested for it.
    """

    resources: Resources

    @property
    def node(self) -> str | None:
        """The node that it runs on; None while it waits for its resources."""


Actor = TypeVar("Actor", bound=RequestedActor)


def plan_actors(
    nodes: Sequence[dict[str, Any]],
    requested: Sequence[Actor],
    wanted: int | None,
    gpu: bool,
    can_scale: bool,
    shards: int,
) -> tuple[list[Resources], list[Actor]]:
    """Decide by the cluster's resources which actors to request, and which pending ones to give up.

    If the cluster can scale and the number of actors is open, more actors are requested than fit, so that an
    autoscaler starts nodes: as many again as there are now, so that the cluster doubles.

    Args:
        nodes: The cluster's living nodes, as `ray.nodes()` describes them.
        requested: The actors that were requested before and live.
        wanted: The number of actors; None means one per GPU or, without GPUs, one per node.
        gpu: Whether the actors can use GPUs.
        can_scale: Whether nodes may join.
        shards: How many shards are unfinished; more actors than these would be idle.

    Returns:
        What to request now, and the requested actors to give up.
    """
    gpus = sum(int(node["Resources"].get("GPU", 0)) for node in nodes) if gpu else 0
    cores = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes}
    cores = {node: count for node, count in cores.items() if count}
    if not gpus and not cores:
        return [] if requested else [Resources(0, 1, is_placeholder=True)], []
    if not gpus and not wanted:
        return _one_per_node(cores, requested, can_scale, shards)
    total = wanted or gpus * (2 if can_scale else 1)
    each = Resources(1, 1) if gpus else Resources(0, _cores_per_actor(list(cores.values()), total))
    matching = sum(actor.resources.gpus == each.gpus and not actor.resources.is_placeholder for actor in requested)
    given_up = [actor for actor in requested if actor.resources.is_placeholder]
    return [each] * (min(total, shards) - matching), given_up


def _cores_per_actor(cores: list[int], wanted: int) -> int:
    """Return the cores for each of `wanted` actors; none spans two nodes."""
    return max(1, min(sum(cores) // wanted, max(cores)))


def _one_per_node(
    cores: dict[str, int], requested: Sequence[Actor], can_scale: bool, shards: int
) -> tuple[list[Resources], list[Actor]]:
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
    kept = {*workers, *placeholders}
    return to_request, [actor for actor in requested if actor not in kept]


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
