"""Which actors a run requests: by the cluster's resources, never by the driver's machine."""

from __future__ import annotations

from dataclasses import dataclass

from flowers_batch.cluster.scaling import Resources, largest_node, plan_actors

GPU, MANY = Resources(1, 1), 1000


@dataclass(eq=False)
class Requested:
    """An actor that was requested, and the node that it runs on."""

    resources: Resources
    node: str | None = None


def node(name: str, **resources: float) -> dict:
    return {"NodeID": name, "Resources": resources}


def planned(nodes: list[dict], wanted: int | None = None, gpu: bool = True, shards: int = MANY) -> list[Resources]:
    return plan_actors(nodes, [], wanted, gpu, False, shards)[0]


def test_plan_has_one_actor_per_gpu_wherever_the_driver_runs():
    nodes = [node("head"), node("a", CPU=16, GPU=2), node("b", CPU=8, GPU=1)]
    assert planned(nodes) == [GPU] * 3
    assert planned(nodes, 2) == [GPU] * 2
    assert planned(nodes, shards=2) == [GPU] * 2


def test_plan_without_gpus_has_one_actor_per_node_with_its_cores():
    nodes = [node("head", CPU=0), node("a", CPU=16), node("b", CPU=8)]
    assert planned(nodes) == [Resources(0, 16, "a"), Resources(0, 8, "b")]
    assert planned(nodes, 4) == [Resources(0, 6)] * 4


def test_plan_for_labelling_codes_requests_no_gpu():
    assert planned([node("a", CPU=4, GPU=1)], gpu=False) == [Resources(0, 4, "a")]


def test_no_actor_requests_more_cores_than_a_node_has():
    nodes = [node(name, CPU=4) for name in "abc"]
    assert planned(nodes, 2) == [Resources(0, 4)] * 2
    assert planned(nodes, 24) == [Resources(0, 1)] * 24


def test_all_wanted_actors_are_requested_even_if_few_fit():
    nodes = [node("a", CPU=8, GPU=1)]
    assert planned(nodes, 5) == [GPU] * 5
    requested = [Requested(GPU, "a"), *[Requested(GPU)] * 4]
    assert plan_actors(nodes, requested, 5, True, True, MANY) == ([], [])
    assert plan_actors(nodes, requested[:3], 5, True, True, MANY) == ([GPU] * 2, [])


class Cluster:
    """A cluster whose autoscaler starts a node for each pending actor, up to a limit."""

    def __init__(self, most: int, **resources: float):
        self.most, self.kind = most, resources
        self.nodes: list[dict] = [node("head", CPU=0)]
        self.requested: list[Requested] = []
        self.made = 0

    def round(self, shards: int = MANY) -> None:
        add, given_up = plan_actors(self.nodes, self.requested, None, True, True, shards)
        self.requested = [actor for actor in self.requested if actor not in given_up]
        self.requested += [Requested(resources) for resources in add]
        self.place()
        while len(self.nodes) - 1 < self.most and any(actor.node is None for actor in self.requested):
            self.made += 1
            self.nodes.append(node(f"n{self.made}", **self.kind))
            before = self.waiting
            self.place()
            if self.waiting == before:
                break

    @property
    def waiting(self) -> int:
        return sum(actor.node is None for actor in self.requested)

    def free(self, place: dict) -> tuple[float, float]:
        here = [actor.resources for actor in self.requested if actor.node == place["NodeID"]]
        own = place["Resources"]
        return own.get("CPU", 0) - sum(r.cpus for r in here), own.get("GPU", 0) - sum(r.gpus for r in here)

    def place(self) -> None:
        for actor in self.requested:
            for place in self.nodes if actor.node is None else ():
                cpus, gpus = self.free(place)
                affine = actor.resources.node in (None, place["NodeID"])
                if affine and cpus >= actor.resources.cpus and gpus >= actor.resources.gpus:
                    actor.node = place["NodeID"]
                    break

    def lose(self, count: int) -> None:
        gone = {place["NodeID"] for place in self.nodes[1 : 1 + count]}
        self.nodes = [place for place in self.nodes if place["NodeID"] not in gone]
        self.requested = [actor for actor in self.requested if actor.node not in gone]

    def workers(self) -> list[str]:
        return sorted(actor.node for actor in self.requested if actor.node and not actor.resources.is_placeholder)


def test_gpu_cluster_grows_by_doubling_and_again_after_losses():
    cluster = Cluster(16, CPU=4, GPU=1)
    sizes = []
    for _ in range(7):
        cluster.round()
        sizes.append(len(cluster.workers()))
    assert sizes[-1] == 16 and sizes == sorted(sizes) and sizes.index(16) <= 6
    assert not any(actor.resources.is_placeholder for actor in cluster.requested)
    assert all(actor.resources == GPU for actor in cluster.requested)
    cluster.lose(15)
    for _ in range(6):
        cluster.round()
    assert len(cluster.workers()) == 16


def test_cpu_cluster_has_one_actor_per_node_with_all_its_cores():
    cluster = Cluster(8, CPU=16)
    for _ in range(12):
        cluster.round()
        assert len(set(cluster.workers())) == len(cluster.workers())
    assert len(cluster.workers()) == 8
    assert all(actor.resources.cpus == 16 for actor in cluster.requested if actor.node)
    cluster.lose(5)
    for _ in range(8):
        cluster.round()
    assert len(cluster.workers()) == 8


def test_no_more_actors_are_requested_than_there_are_shards():
    cluster = Cluster(16, CPU=4, GPU=1)
    for _ in range(8):
        cluster.round(shards=3)
    assert len(cluster.requested) == 3 == len(cluster.workers())
    assert len(cluster.nodes) <= 1 + 4


def test_cluster_that_cannot_scale_gets_no_further_requests():
    nodes = [node("a", CPU=8, GPU=2)]
    assert plan_actors(nodes, [Requested(GPU, "a"), Requested(GPU, "a")], None, True, False, MANY) == ([], [])
    assert plan_actors([node("a", CPU=8)], [Requested(Resources(0, 8, "a"), "a")], None, True, False, MANY) == (
        [],
        [],
    )


def test_actor_for_a_missing_node_is_given_up():
    requested = [Requested(Resources(0, 8, "gone")), Requested(Resources(0, 8, "a"), "a")]
    assert plan_actors([node("a", CPU=8)], requested, None, True, False, MANY) == ([], requested[:1])


def test_lost_gpus_are_still_requested():
    nodes = [node("head", CPU=4), node("a", CPU=8, GPU=1)]
    requested = [Requested(GPU, "a"), Requested(GPU)]
    assert plan_actors(nodes, requested, None, True, True, MANY) == ([], [])
    lost = [actor for actor in requested if actor.node is None]
    resources, given_up = plan_actors(nodes[:1], lost, None, True, True, MANY)
    assert not given_up and Resources(0, 4, "head") in resources
    # And when GPUs are back, an actor on a CPU does not occupy one.
    back = [*lost, Requested(Resources(0, 4, "head"), "head")]
    assert plan_actors(nodes, back, None, True, True, MANY) == ([GPU], [])


def test_largest_node_is_the_one_with_the_most_gpus():
    nodes = [node("head", CPU=64), node("a", CPU=16, GPU=2), node("b", CPU=8, GPU=4)]
    assert largest_node(nodes) == Resources(4, 1)
    assert largest_node(nodes[:1]) == Resources(0, 64)
    assert largest_node([node("head", CPU=0)]) is None
