"""What actors ask for, and what becomes of shards when they die."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import draw_archive

import flowers_batch as fb
from flowers_batch.cluster import Resources, plan_actors, run_shards
from flowers_batch.config import ClusterConfig
from flowers_batch.dataset import CODES
from flowers_batch.encoder import EncoderFactory
from flowers_batch.progress import Silence
from flowers_batch.shards import write_manifest
from flowers_batch.sources import open_source
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


def test_a_cluster_with_nothing_to_run_on_is_refused():
    with pytest.raises(fb.InputError, match="neither a GPU nor a CPU"):
        plan_actors([node("head")], None, gpu=True)


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
            def read(self, path: str) -> bytes:
                if path == image and (left := sorted(lives.iterdir())):
                    left[0].unlink()
                    os.kill(os.getpid(), signal.SIGKILL)
                return read(path)

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
        def read(self, path: str) -> bytes:
            return bytes(1 // 0)

    return Broken()


def test_an_address_where_no_cluster_is_is_refused_in_one_sentence(archive, tmp_path):
    script = (
        "import sys, flowers_batch as fb\n"
        "config = fb.EncodeConfig(network='null', cluster=fb.ClusterConfig(address='nonsense://x'))\n"
        "try: fb.encode(sys.argv[1], sys.argv[2], config)\n"
        "except fb.InputError as error: print(error)\n"
    )
    import subprocess

    command = [sys.executable, "-c", script, str(archive), str(tmp_path / "codes")]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120).stdout
    assert "The Ray cluster at nonsense://x cannot be joined" in printed
