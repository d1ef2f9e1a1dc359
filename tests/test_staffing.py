"""What actors a run asks for: by the cluster's resources, never by the driver's machine."""

from __future__ import annotations

import pytest

from flowers_batch.cluster.scaling import RequestedActor, Resources, largest_node, plan_actors

GPU, MANY = Resources(1, 1), 1000


def node(name: str, **resources: float) -> dict:
    return {"NodeID": name, "Resources": resources}


def asked(nodes: list[dict], wanted: int | None = None, gpu: bool = True, shards: int = MANY) -> list[Resources]:
    return plan_actors(nodes, [], wanted, gpu, False, shards)[0]


def test_one_actor_a_gpu_wherever_the_driver_runs():
    nodes = [node("head"), node("a", CPU=16, GPU=2), node("b", CPU=8, GPU=1)]
    assert asked(nodes) == [GPU] * 3
    assert asked(nodes, 2) == [GPU] * 2
    assert asked(nodes, shards=2) == [GPU] * 2


def test_actors_that_share_a_gpu():
    nodes = [node("a", CPU=16, GPU=2), node("b", CPU=8, GPU=1)]
    shared = Resources(1, 1, sharing=3)
    assert plan_actors(nodes, [], None, True, False, MANY, 3) == ([shared] * 9, [])
    assert plan_actors(nodes, [RequestedActor(shared, "a")] * 5, None, True, True, MANY, 3) == ([shared] * 13, [])
    assert plan_actors(nodes, [], 4, True, True, MANY, 3) == ([shared] * 4, [])
    assert plan_actors([node("a", CPU=4, GPU=1)], [], None, True, False, MANY, 8)[0] == [Resources(1, 1, sharing=8)] * 4
    assert plan_actors([node("a", CPU=16)], [], None, True, False, MANY, 3) == ([Resources(0, 16, "a")], [])


@pytest.mark.parametrize("sharing", range(1, 33))
def test_all_that_share_a_gpu_find_room_on_it(sharing):
    share = round(Resources(1, 1, sharing=sharing).gpu_share * 10_000)  # as Ray counts
    assert 10_000 - sharing < share * sharing <= 10_000


def test_without_gpus_one_actor_a_node_with_its_cores():
    nodes = [node("head", CPU=0), node("a", CPU=16), node("b", CPU=8)]
    assert asked(nodes) == [Resources(0, 16, "a"), Resources(0, 8, "b")]
    assert asked(nodes, 4) == [Resources(0, 6)] * 4


def test_labelling_codes_asks_for_no_gpu():
    assert asked([node("a", CPU=4, GPU=1)], gpu=False) == [Resources(0, 4, "a")]


def test_no_actor_asks_for_more_cores_than_a_node_has():
    nodes = [node(name, CPU=4) for name in "abc"]
    assert asked(nodes, 2) == [Resources(0, 4)] * 2
    assert asked(nodes, 24) == [Resources(0, 1)] * 24


def test_so_many_actors_are_asked_for_as_are_wanted_however_few_fit():
    nodes = [node("a", CPU=8, GPU=1)]
    assert asked(nodes, 5) == [GPU] * 5
    posts = [RequestedActor(GPU, "a"), *[RequestedActor(GPU)] * 4]
    assert plan_actors(nodes, posts, 5, True, True, MANY) == ([], [])
    assert plan_actors(nodes, posts[:3], 5, True, True, MANY) == ([GPU] * 2, [])


class Cluster:
    """A cluster whose autoscaler brings a node for what waits, up to a limit."""

    def __init__(self, most: int, **resources: float):
        self.most, self.kind = most, resources
        self.nodes: list[dict] = [node("head", CPU=0)]
        self.posts: list[RequestedActor] = []
        self.made = 0

    def round(self, shards: int = MANY) -> None:
        add, given_up = plan_actors(self.nodes, self.posts, None, True, True, shards)
        self.posts = [post for number, post in enumerate(self.posts) if number not in given_up]
        self.posts += [RequestedActor(resources) for resources in add]
        self.place()
        while len(self.nodes) - 1 < self.most and any(post.node is None for post in self.posts):
            self.made += 1
            self.nodes.append(node(f"n{self.made}", **self.kind))
            before = self.waiting
            self.place()
            if self.waiting == before:
                break

    @property
    def waiting(self) -> int:
        return sum(post.node is None for post in self.posts)

    def free(self, place: dict) -> tuple[float, float]:
        here = [post.resources for post in self.posts if post.node == place["NodeID"]]
        own = place["Resources"]
        return own.get("CPU", 0) - sum(r.cpus for r in here), own.get("GPU", 0) - sum(r.gpus for r in here)

    def place(self) -> None:
        for number, post in enumerate(self.posts):
            for place in self.nodes if post.node is None else ():
                cpus, gpus = self.free(place)
                affine = post.resources.node in (None, place["NodeID"])
                if affine and cpus >= post.resources.cpus and gpus >= post.resources.gpus:
                    self.posts[number] = RequestedActor(post.resources, place["NodeID"])
                    break

    def lose(self, count: int) -> None:
        gone = {place["NodeID"] for place in self.nodes[1 : 1 + count]}
        self.nodes = [place for place in self.nodes if place["NodeID"] not in gone]
        self.posts = [post for post in self.posts if post.node not in gone]

    def workers(self) -> list[str]:
        return sorted(post.node for post in self.posts if post.node and not post.resources.is_placeholder)


def test_a_cluster_of_gpus_grows_from_nothing_by_doubling_and_again_after_losses():
    cluster = Cluster(16, CPU=4, GPU=1)
    sizes = []
    for _ in range(7):
        cluster.round()
        sizes.append(len(cluster.workers()))
    assert sizes[-1] == 16 and sizes == sorted(sizes) and sizes.index(16) <= 6
    assert not any(post.resources.is_placeholder for post in cluster.posts)
    assert all(post.resources == GPU for post in cluster.posts)
    cluster.lose(15)
    for _ in range(6):
        cluster.round()
    assert len(cluster.workers()) == 16


def test_a_cluster_of_cpus_has_one_actor_a_node_with_all_its_cores():
    cluster = Cluster(8, CPU=16)
    for _ in range(12):
        cluster.round()
        assert len(set(cluster.workers())) == len(cluster.workers())
    assert len(cluster.workers()) == 8
    assert all(post.resources.cpus == 16 for post in cluster.posts if post.node)
    cluster.lose(5)
    for _ in range(8):
        cluster.round()
    assert len(cluster.workers()) == 8


def test_no_more_is_asked_for_than_there_are_shards():
    cluster = Cluster(16, CPU=4, GPU=1)
    for _ in range(8):
        cluster.round(shards=3)
    assert len(cluster.posts) == 3 == len(cluster.workers())
    assert len(cluster.nodes) <= 1 + 4


def test_a_cluster_that_does_not_grow_is_asked_for_nothing_more():
    nodes = [node("a", CPU=8, GPU=2)]
    assert plan_actors(nodes, [RequestedActor(GPU, "a"), RequestedActor(GPU, "a")], None, True, False, MANY) == ([], [])
    assert plan_actors([node("a", CPU=8)], [RequestedActor(Resources(0, 8, "a"), "a")], None, True, False, MANY) == (
        [],
        [],
    )


def test_an_actor_for_a_node_that_is_gone_is_not_waited_for():
    posts = [RequestedActor(Resources(0, 8, "gone")), RequestedActor(Resources(0, 8, "a"), "a")]
    assert plan_actors([node("a", CPU=8)], posts, None, True, False, MANY) == ([], [0])


def test_a_cluster_that_has_lost_its_gpus_is_still_asked_for_them():
    nodes = [node("head", CPU=4), node("a", CPU=8, GPU=1)]
    posts = [RequestedActor(GPU, "a"), RequestedActor(GPU)]
    assert plan_actors(nodes, posts, None, True, True, MANY) == ([], [])
    lost = [post for post in posts if post.node is None]
    asked, given_up = plan_actors(nodes[:1], lost, None, True, True, MANY)
    assert not given_up and Resources(0, 4, "head") in asked
    # And when GPUs are back, an actor on a CPU takes the place of none.
    back = [*lost, RequestedActor(Resources(0, 4, "head"), "head")]
    assert plan_actors(nodes, back, None, True, True, MANY) == ([GPU], [])


def test_what_works_alone_gets_all_gpus_of_the_node_that_has_most():
    nodes = [node("head", CPU=64), node("a", CPU=16, GPU=2), node("b", CPU=8, GPU=4)]
    assert largest_node(nodes) == Resources(4, 1)
    assert largest_node(nodes[:1]) == Resources(0, 64)
    assert largest_node([node("head", CPU=0)]) is None
