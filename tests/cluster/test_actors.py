"""What runs inside an actor."""

from __future__ import annotations

import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from helpers import write

from flowers_batch.cluster.actors import ShardActor, log_event
from flowers_batch.cluster.messages import ShardJob
from flowers_batch.dataset.shard import Shard
from flowers_batch.storage import scratch


class SlowStream(io.StringIO):
    """A stream that lets other threads run between two writes."""

    def write(self, text: str) -> int:
        time.sleep(0.002)
        return super().write(text)


def test_log_lines_of_concurrent_shards_do_not_mix(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := SlowStream())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: log_event("done", Shard(number, 1, "")), range(20)))
    assert sorted(json.loads(line)["shard"] for line in stream.getvalue().splitlines()) == list(range(20))


def test_starting_actor_sweeps_what_killed_ones_left_on_its_node(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt  # what follows takes a network

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / f"{scratch.PREFIX}12345678"
    write(left, {"_tmp-.parquet": b"a shard that was not uploaded", scratch._LOCK: b""})
    with pytest.raises(KeyboardInterrupt):
        ShardActor(ShardJob(fail, str(tmp_path), "codes"), 1, (), "here").start()
    assert not left.exists()


def test_actor_that_loads_its_weights_makes_progress(tmp_path):
    """So that a download of minutes, or the wait for another actor's, is not taken for a stall."""
    steps = []

    class Factory:
        def __call__(self, threads, gpu, progress):
            for _ in range(3):
                progress()
                steps.append(actor.heartbeat().step)
            return SimpleNamespace(fingerprint=None)

    actor = ShardActor(ShardJob(Factory(), str(tmp_path), "codes"), 1, (), "node")
    before = actor.heartbeat().step
    actor.start()
    assert before < steps[0] < steps[1] < steps[2]
