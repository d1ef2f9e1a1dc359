"""Actors, drivers and a node are killed at random, and the rows are as if none had been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import descendants
from PIL import Image

import flowers_batch as fb
from flowers_batch.dataset.manifest import read_manifest, read_rows
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.encoding.factories import EncoderFactory
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.opening import open_folder

SIDE = 1200  # pixels: a photo takes some hundredths of a second, so that actors are killed during shards

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
print(cluster.address, flush=True)
for _ in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
"""


def draw(folder: Path, photos: int, seed: int) -> Path:
    """Large smooth pictures, all different, and a few files that are not images."""
    random_ = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, SIDE)
    for number in range(photos):
        path = folder / f"{number % 7}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        first, second = random_.integers(0, 256, (2, 3))
        row = (first + np.outer(ramp, second.astype(float) - first)).astype(np.uint8)
        Image.fromarray(np.broadcast_to(row, (SIDE, SIDE, 3))).save(path, compress_level=1)
        if number % 50 == 49:
            path.write_bytes(b"no picture")
    return folder


def rows_by_path(batches) -> dict[str, dict]:
    found = [row for batch in batches for row in batch.to_pylist()]
    rows = {row["path"]: row for row in found}
    assert len(rows) == len(found)
    return rows


class Storm:
    """Kill actors of a cluster at random until the block ends."""

    def __init__(self, cluster: int, seed: int, seconds: tuple[float, float]):
        self._cluster, self._random, self._seconds = cluster, random.Random(seed), seconds
        self._over, self.kills = threading.Event(), 0
        self._thread = threading.Thread(target=self._rage)

    def _rage(self) -> None:
        while not self._over.wait(self._random.uniform(*self._seconds)):
            actors = [pid for pid, name in descendants(self._cluster).items() if "RemoteShardActor" in name]
            if actors:
                os.kill(self._random.choice(sorted(actors)), signal.SIGKILL)
                self.kills += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def through_a_storm(tmp_path: Path, seed: int, shards: int, drivers: int, seconds: tuple[float, float]) -> Storm:
    """Encode while actors die every few seconds, `drivers` drivers die after progress, and a node dies once."""
    size = 8
    photos, out = draw(tmp_path / "photos", shards * size, seed), tmp_path / "codes"
    dice = random.Random(seed)

    def finished() -> dict[Path, tuple[int, int]]:
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in out.glob("codes/shard-*")}

    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert cluster.stdin and cluster.stdout
        address = cluster.stdout.readline().strip()
        command = [sys.executable, "-m", "flowers_batch", "encode", str(photos), str(out), "--network", "null"]
        command += ["--shard-size", str(size), "--batch-size", "2", "--address", address, "--json"]
        done: dict[Path, tuple[int, int]] = {}
        with Storm(cluster.pid, seed, seconds) as storm:
            for left in range(drivers, 0, -1):
                driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                goal = len(done) + dice.randint(1, max(1, (shards - len(done)) // (left + 1)))
                while len(finished()) < goal:
                    assert driver.poll() is None, "the driver ended by itself"
                    time.sleep(0.01)
                time.sleep(dice.uniform(0, 0.5))
                driver.kill()
                driver.wait()
                time.sleep(1)  # its actors end on their own
                done |= {path: stamp for path, stamp in finished().items() if path not in done}
                assert not (out / "_SUCCESS").exists()
                if left == drivers // 2 + 1:
                    cluster.stdin.write("lose a node\n")
            ended = subprocess.run(command, stdout=subprocess.PIPE, timeout=300, check=True, text=True)
    finally:
        for pid in [cluster.pid, *descendants(cluster.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        cluster.wait()

    summary = json.loads(ended.stdout.splitlines()[-1])
    assert summary["images"] == shards * size and summary["shards"] == shards
    assert len(done) < shards and {path: stamp for path, stamp in finished().items() if path in done} == done
    assert not list(out.rglob("_tmp-*"))
    assert fb.verify(out).is_complete

    worker = EncoderFactory(fb.EncodeConfig(network="null"), open_source(photos))(2, False)
    folder = open_folder(out)
    manifest = read_manifest(folder)
    inputs = pa.concat_tables([read_rows(folder, shard) for shard in manifest.shards])
    expected = rows_by_path(worker.batches(0, inputs, {}))
    assert rows_by_path(open_run(out, "codes").batches(worker.schema.names)) == expected
    return storm


@pytest.mark.faults
@pytest.mark.nightly
def test_rows_survive_a_short_storm(tmp_path):
    # An actor starts in 1.3 s; if they died more often, five would die while they start, which ends a run.
    assert through_a_storm(tmp_path, 1, shards=48, drivers=1, seconds=(1.5, 3.0)).kills >= 3


@pytest.mark.faults
@pytest.mark.nightly
def test_rows_survive_a_long_storm(tmp_path):
    assert through_a_storm(tmp_path, 2, shards=192, drivers=10, seconds=(2, 6)).kills >= 10
