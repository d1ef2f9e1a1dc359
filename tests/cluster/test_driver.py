"""Runs of shards on a local Ray."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from helpers import draw_archive

import flowers_batch as fb
from flowers_batch.cluster.driver import run_shards
from flowers_batch.cluster.messages import ShardJob
from flowers_batch.config import ClusterConfig
from flowers_batch.dataset.growth import write_manifest
from flowers_batch.dataset.schema import CODES
from flowers_batch.encoding.factories import EncoderFactory
from flowers_batch.progress import NULL_REPORTER, no_progress
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.opening import open_folder


@dataclass(frozen=True)
class Deadly(EncoderFactory):
    """Make encoders whose actor kills itself at one image, once per file that it can remove."""

    image: str = ""
    lives: str = ""

    def __call__(self, threads: int, gpu: bool, progress: Callable[[], None] = no_progress):
        worker = super().__call__(threads, gpu, progress)
        submit = worker._feed.pool.submit
        image, lives = self.image, Path(self.lives)

        def submit_or_die(rows: pa.RecordBatch, first_slot: int):
            if image in rows["path"].to_pylist() and (left := sorted(lives.iterdir())):
                left[0].unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            return submit(rows, first_slot)

        worker._feed.pool.submit = submit_or_die
        return worker


@pytest.fixture
def deadly(tmp_path, local_ray):
    """Run over 24 images in shards of 4; actors die `deaths` times at the tenth image."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    source = open_source(draw_archive(tmp_path / "photos", 8))
    folder = open_folder(tmp_path / "codes")
    manifest = write_manifest(folder, source, 4, "run")
    (tmp_path / "lives").mkdir()

    def run(deaths: int):
        for number in range(deaths):
            (tmp_path / "lives" / str(number)).touch()
        encoding, lives = fb.EncodeConfig(network="null"), str(tmp_path / "lives")
        factory = Deadly(encoding, source, image="green/0001.png", lives=lives)
        job = ShardJob(factory, folder.url, CODES)
        return run_shards(job, manifest.shards, ClusterConfig(), lambda fingerprint: None, NULL_REPORTER)

    return run


@pytest.mark.faults
def test_shards_of_a_dead_actor_are_retried_on_another(deadly):
    result = deadly(deaths=2)
    assert result.deaths == 2
    assert sorted(result.footers) == list(range(6))
    assert sum(footer.ok for footer in result.footers.values()) == 24


@pytest.mark.slow
def test_five_deaths_on_one_shard_end_the_run(deadly):
    # A death counts against every unfinished shard of its actor, and any of them may reach five first.
    with pytest.raises(fb.RunError, match=r"5 actors died on shard \d\. Cause"):
        deadly(deaths=100)


class Broken(EncoderFactory):
    """Make encoders whose network has a bug."""

    def __call__(self, threads: int, gpu: bool, progress: Callable[[], None] = no_progress):
        worker = super().__call__(threads, gpu, progress)
        worker._feed._network = lambda pixels: 1 / 0
        return worker


def test_exception_in_an_actor_ends_the_run(archive, tmp_path, local_ray):
    from ray import cloudpickle

    source = open_source(archive)
    folder = open_folder(tmp_path / "codes")
    manifest = write_manifest(folder, source, 16, "run")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    broken = Broken(fb.EncodeConfig(network="null", batch_size=4), source)
    job = ShardJob(broken, folder.url, CODES)
    with pytest.raises(fb.RunError, match="ZeroDivisionError"):
        run_shards(job, manifest.shards, ClusterConfig(), lambda fingerprint: None, NULL_REPORTER)
