"""What actors ask for, and what becomes of shards when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import draw_archive

import flowers_batch as fb
from flowers_batch.cluster import Resources, _Pool, plan_actors, run_shards
from flowers_batch.config import ClusterConfig
from flowers_batch.dataset import CODES
from flowers_batch.encoder import EncoderFactory
from flowers_batch.progress import Silence
from flowers_batch.shards import Shard, write_manifest
from flowers_batch.sources import Image, open_source
from flowers_batch.storage import open_folder


def node(name: str, **resources: float) -> dict:
    return {"NodeID": name, "Resources": resources}


def test_one_actor_a_gpu_wherever_the_driver_runs():
    nodes = [node("head"), node("a", CPU=16, GPU=2), node("b", CPU=8, GPU=1)]
    assert plan_actors(nodes, None, gpu=True) == [Resources(1, 1)] * 3
    assert plan_actors(nodes, 2, gpu=True) == [Resources(1, 1)] * 2


def test_without_gpus_one_actor_a_node_with_its_cores():
    nodes = [node("head", CPU=0), node("a", CPU=16), node("b", CPU=8)]
    assert plan_actors(nodes, None, gpu=True) == [Resources(0, 16, "a"), Resources(0, 8, "b")]
    assert plan_actors(nodes, 4, gpu=True) == [Resources(0, 6)] * 4


def test_labelling_codes_asks_for_no_gpu():
    assert plan_actors([node("a", CPU=4, GPU=1)], None, gpu=False) == [Resources(0, 4, "a")]


def test_no_actor_asks_for_more_cores_than_a_node_has():
    nodes = [node(name, CPU=4) for name in "abc"]
    assert plan_actors(nodes, 2, gpu=True) == [Resources(0, 4)] * 2
    assert plan_actors(nodes, 24, gpu=True) == [Resources(0, 1)] * 24


class FakePool(_Pool):
    """A pool whose actors are names and whose shards only go out."""

    def __init__(self, actors: int, shards: int):
        super().__init__(None, "", "", [Shard(number, 1, "", 0, 0) for number in range(shards)], None, Silence())
        self._in_flight = {Actor(str(number)): 0 for number in range(actors)}


class Actor:
    def __init__(self, name: str):
        self.run = self
        self.name = name

    def remote(self, shard):
        return self.name, shard.number


def test_every_actor_gets_a_shard_before_any_gets_a_second():
    pool = FakePool(actors=3, shards=4)
    pool._hand_out()
    assert sorted(pool._in_flight.values()) == [1, 1, 2]
    pool = FakePool(actors=2, shards=9)
    pool._hand_out()
    assert list(pool._in_flight.values()) == [2, 2] and len(pool._waiting) == 5


NODES = """
import sys, threading, time
import ray
from ray.cluster_utils import Cluster
import flowers_batch as fb
from flowers_batch.dataset import shard_name
from pathlib import Path

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

def lose_a_node():
    while not list((Path(sys.argv[2]) / "codes").glob("shard-*")):
        time.sleep(0.01)
    cluster.remove_node(nodes[1])

threading.Thread(target=lose_a_node, daemon=True).start()
summary = fb.encode(sys.argv[1], sys.argv[2], fb.EncodeConfig(network="null", shard_size=1, batch_size=1))
print(summary.ok, summary.shards)
"""


def test_shards_of_a_node_that_is_lost_go_to_the_actors_that_are_left(archive, tmp_path):
    """The lost node's actor can never be replaced: nothing has its resources."""
    command = [sys.executable, "-c", NODES, str(archive), str(tmp_path / "codes")]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=180, check=True)
    assert ended.stdout.split()[-2:] == ["30", "30"]
    assert fb.verify(str(tmp_path / "codes")).is_whole


MEMORY = """
import sys
import ray
import flowers_batch as fb
ray.init(address="local", num_cpus=1, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
try:
    fb.encode(sys.argv[1], sys.argv[2], fb.EncodeConfig(network="null"))
except fb.RunError as error:
    print("RunError:", error)
"""


@pytest.mark.slow
def test_actors_that_use_up_their_nodes_memory_end_the_run_in_a_sentence(archive, tmp_path):
    command = [sys.executable, "-c", MEMORY, str(archive), str(tmp_path / "codes")]
    limits = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=180, env=os.environ | limits)
    assert ended.returncode == 0 and "RunError: 5 actors died" in ended.stdout


@dataclass(frozen=True)
class Deadly:
    """Makes encoders whose actor kills itself at a certain image, as often as there are files to take away."""

    inner: EncoderFactory
    image: str
    lives: str
    wants_gpu = True

    def with_precision(self, precision: str) -> Deadly:
        return replace(self, inner=self.inner.with_precision(precision))

    def __call__(self, threads: int, gpu: bool):
        worker = self.inner(threads, gpu)
        read = worker._source.read
        image, lives = self.image, Path(self.lives)

        class Source:
            def read(self, listed: Image) -> bytes:
                if listed.path == image and (left := sorted(lives.iterdir())):
                    left[0].unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
                return read(listed)

        worker._source = Source()
        return worker


@pytest.fixture
def deadly(tmp_path, local_ray):
    """Runs over 24 images, 4 a shard, in which actors die `deaths` times at the tenth."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    source = open_source(draw_archive(tmp_path / "photos", 8))
    folder = open_folder(tmp_path / "codes")
    manifest = write_manifest(folder, source, 4, "run")
    (tmp_path / "lives").mkdir()

    def run(deaths: int):
        for number in range(deaths):
            (tmp_path / "lives" / str(number)).touch()
        factory = Deadly(
            EncoderFactory(fb.EncodeConfig(network="null"), source), "green/0001.png", str(tmp_path / "lives")
        )
        return run_shards(
            factory, folder.url, CODES, manifest.shards, ClusterConfig(), lambda fingerprint: None, Silence()
        )

    return run


def test_shards_of_an_actor_that_dies_go_to_another(deadly):
    outcome = deadly(deaths=2)
    assert outcome.deaths == 2
    assert sorted(outcome.footers) == list(range(6))
    assert sum(footer.ok for footer in outcome.footers.values()) == 24


def test_a_shard_that_outlives_its_actors_again_and_again_ends_the_run(deadly):
    with pytest.raises(fb.RunError, match="5 actors died on shard 2"):
        deadly(deaths=100)


def test_weights_that_do_not_fit_are_told_in_one_sentence_and_start_nothing(archive, tmp_path):
    file = tmp_path / "weights.h5"
    file.write_text("no weights")
    with pytest.raises(fb.InputError, match=r"weights\.h5 is not a readable file of Keras weights"):
        fb.encode(str(archive), str(tmp_path / "codes"), fb.EncodeConfig(weights=str(file)))
    assert not (tmp_path / "codes").exists()


def test_a_fault_of_the_program_is_not_tried_again(archive, tmp_path, local_ray):
    source = open_source(archive)
    folder = open_folder(tmp_path / "codes")
    manifest = write_manifest(folder, source, 16, "run")
    broken = EncoderFactory(fb.EncodeConfig(network="null", batch_size=4), replace_read(source))
    with pytest.raises(fb.RunError, match="ZeroDivisionError"):
        run_shards(broken, folder.url, CODES, manifest.shards, ClusterConfig(), lambda fingerprint: None, Silence())


def replace_read(source):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    class Broken:
        def read(self, image: Image) -> bytes:
            return bytes(1 // 0)

    return Broken()


def test_an_address_where_no_cluster_is_is_refused_in_one_sentence(archive, tmp_path):
    script = (
        "import sys, flowers_batch as fb\n"
        "config = fb.EncodeConfig(network='null', cluster=fb.ClusterConfig(address='nonsense://x'))\n"
        "try: fb.encode(sys.argv[1], sys.argv[2], config)\n"
        "except fb.InputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(archive), str(tmp_path / "codes")]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120).stdout
    assert "The Ray cluster at nonsense://x cannot be joined" in printed
