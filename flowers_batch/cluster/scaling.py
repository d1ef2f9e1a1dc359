"""Which actors a run requests from its cluster as nodes join and leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Resources:
    """What an actor asks its cluster for.

    Attributes:
        gpus: How many.
        cpus: Cores.
        node: The node that it should run on; None lets Ray choose.
        is_scout: Whether it does no work: an autoscaler brings a node for it, which then gets an actor of its own.
        sharing: How many actors share each of the GPUs.
    """

    gpus: int
    cpus: int
    node: str | None = None
    is_placeholder: bool = False
    sharing: int = 1

    @property
    def gpu_share(self) -> float:
        """The GPUs to ask Ray for, which rounds to four digits: not up, or the last actor would find no room."""
        return math.floor(10_000 * self.gpus / self.sharing) / 10_000


@dataclass(frozen=True)
class RequestedActor:
    """An actor that was asked for.

    Attributes:
        resources: What it asked for.
        node: Where it runs; None while it waits for its resources.
    """

    resources: Resources
    node: str | None = None


def plan_actors(
    nodes: Sequence[dict[str, Any]],
    posts: Sequence[RequestedActor],
    wanted: int | None,
    gpu: bool,
    grows: bool,
    shards: int,
    sharing: int = 1,
) -> tuple[list[Resources], list[int]]:
    """Decides by the cluster's resources what actors to ask for, and which not to wait for any longer.

    Where as many are wanted as there may be, more are asked for than there is room for, so that an autoscaler brings
    nodes: as many again as there are, so that they double.

    Args:
        nodes: The cluster's living nodes, as `ray.nodes()` tells them.
        posts: The actors that were asked for.
        wanted: How many actors; None takes `sharing` a GPU, or one a node where there are no GPUs, and more as they
            join.
        gpu: Whether GPUs are of use.
        grows: Whether nodes may join.
        shards: How many shards are left: no more actors than these are of use.
        sharing: How many actors share a GPU.

    Returns:
        What to ask for now, and the numbers of the posts to give up.
    """
    places = sum(_places(node["Resources"], sharing) for node in nodes) if gpu else 0
    cores = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes}
    cores = {node: count for node, count in cores.items() if count}
    if not places and not cores:
        return [] if posts else [Resources(0, 1, is_placeholder=True)], []
    if wanted or places:
        each = Resources(1, 1, sharing=sharing) if places else Resources(0, _share(list(cores.values()), wanted or 1))
        given_up = [number for number, post in enumerate(posts) if post.resources.is_placeholder]
        of_use = sum(post.resources.gpus == each.gpus and not post.resources.is_placeholder for post in posts)
        total = wanted or places * (2 if grows else 1)
        return [each] * (min(total, shards) - of_use), given_up
    return _one_a_node(cores, posts, grows, shards)


def _places(resources: dict[str, Any], sharing: int) -> int:
    """How many actors a node's GPUs have room for: each wants a core, too."""
    gpus = int(resources.get("GPU", 0))
    return max(gpus, min(gpus * sharing, int(resources.get("CPU", 0))))


def _share(cores: list[int], wanted: int) -> int:
    """Cores for each actor; none spans two nodes."""
    return max(1, min(sum(cores) // wanted, max(cores)))


def _one_a_node(
    cores: dict[str, int], posts: Sequence[RequestedActor], grows: bool, shards: int
) -> tuple[list[Resources], list[int]]:
    at_home = [
        post
        for post in posts
        if not post.resources.is_placeholder and (post.node or post.resources.node in cores or post.resources.gpus)
    ]
    covered = {post.node or post.resources.node for post in at_home}
    asked = [Resources(0, count, node) for node, count in cores.items() if node not in covered]
    asked = asked[: max(0, shards - len(at_home))]
    # A scout must not take the place of an actor that waits for its own node.
    settled = not asked and all(post.node or post.resources.gpus for post in at_home)
    scouts = [post for post in posts if post.resources.is_placeholder and post.node is None and settled]
    if settled and grows:
        more = min(len(cores), shards - len(at_home)) - len(scouts)
        asked = [Resources(0, min(cores.values()), is_placeholder=True)] * more
    kept = [*map(id, at_home), *map(id, scouts)]
    return asked, [number for number, post in enumerate(posts) if id(post) not in kept]


def largest_node(nodes: Sequence[dict[str, Any]]) -> Resources | None:
    """All GPUs of the node that has most of them or, without GPUs, the most cores; None where there are neither.

    Args:
        nodes: The cluster's living nodes, as `ray.nodes()` tells them.
    """
    gpus = max((int(node["Resources"].get("GPU", 0)) for node in nodes), default=0)
    cpus = max((int(node["Resources"].get("CPU", 0)) for node in nodes), default=0)
    if gpus:
        return Resources(gpus, 1)
    return Resources(0, cpus) if cpus else None
