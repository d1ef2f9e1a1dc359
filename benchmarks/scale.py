"""A driver with as many shards and actors as 100 million photos have: its time and memory, and how long it resumes.

The actors are stand-ins without Ray: only the driver's own work is measured. `actors.py` has real ones, which sleep.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import plan
import pyarrow as pa
import ray
from common import Claim, most_memory, parse_arguments, report, stopwatch

import flowers_batch as fb
from flowers_batch.cluster import messages
from flowers_batch.cluster.dispatch import Schedule
from flowers_batch.cluster.driver import ShardRun
from flowers_batch.cluster.pool import ActorPool
from flowers_batch.cluster.totals import Totals
from flowers_batch.config import ClusterConfig
from flowers_batch.dataset import schema as schema_module
from flowers_batch.dataset import shard_file
from flowers_batch.dataset.completeness import completed
from flowers_batch.dataset.growth import write_manifest
from flowers_batch.dataset.manifest import read_manifest
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.opening import open_folder

SHARDS, SHARD, ACTORS = 25_000, 4096, 256
LISTED = 1_000_000  # photos in the manifest whose size is reported
FINGERPRINT = Fingerprint("null", "relu6", "null", "float32", "float16")
DIGEST = "0" * 64


class Answer:
    """An actor's answer, in its turn."""

    def __init__(self, value: Any):
        self.value = value


class Actors:
    """256 actors: whenever the driver waits, the oldest call of all is answered."""

    def __init__(self) -> None:
        self.calls: deque[Answer] = deque()

    def __call__(self, job: Any, resources: Any) -> SimpleNamespace:
        """Return an actor's handle."""

        def run(shard: Shard, attempt: int) -> Answer:
            stages = {"read": 1.0, "decode": 1.0, "wait": 1.0, "network": 1.0, "write": 1.0}
            footer = Footer(FINGERPRINT.digest, shard.number, shard.inputs_digest, shard.images, 0, {}, DIGEST)
            self.calls.append(answer := Answer(messages.ShardResult(footer, stages)))
            return answer

        heartbeat = SimpleNamespace(remote=lambda: Answer(messages.Heartbeat("node", 0, {})))
        started = SimpleNamespace(remote=lambda: self.begin())
        return SimpleNamespace(run=SimpleNamespace(remote=run), start=started, heartbeat=heartbeat)

    def begin(self) -> Answer:
        """Be ready at once."""
        self.calls.append(answer := Answer(messages.ActorInfo(FINGERPRINT, "host", ())))
        return answer

    def wait(self, answers: list[Answer], timeout: float, **_: Any) -> tuple[list[Answer], list[Answer]]:
        """Return the oldest call among `answers`, and all heartbeats."""
        if timeout and self.calls:
            self.ready = self.calls.popleft()
        ready = [answer for answer in answers if answer is self.ready or isinstance(answer.value, messages.Heartbeat)]
        return ready, []


def drive() -> tuple[float, float]:
    """Return the seconds per shard, and the bytes that the driver took, of a run of all shards."""
    actors = Actors()
    shards = [Shard(number, SHARD, f"{number:064x}") for number in range(SHARDS)]
    reporter = SimpleNamespace(update=lambda progress: None, message=print)
    factory = SimpleNamespace(with_precision=lambda precision: factory, wants_gpu=True)
    node = [{"NodeID": "node", "Alive": True, "Resources": {"CPU": 16.0 * ACTORS, "GPU": float(ACTORS)}}]
    remote = SimpleNamespace(remote=actors)

    def made(wrapped: Any) -> SimpleNamespace:
        return SimpleNamespace(options=lambda **_: remote)

    before = most_memory()
    with (
        mock.patch.object(ray, "get", lambda answer: answer.value),
        mock.patch.object(ray, "wait", actors.wait),
        mock.patch.object(ray, "kill", lambda actor: None),
        mock.patch.object(ray, "nodes", lambda: node),
        mock.patch.object(ray, "remote", lambda **_: made),
        stopwatch() as seconds,
    ):
        job = messages.ShardJob(factory, "run", CODES)  # type: ignore[arg-type]
        pool = ActorPool(job, ClusterConfig(), False, lambda fingerprint: None)
        result = ShardRun(pool, Schedule(shards), Totals("run", reporter)).run()  # type: ignore[arg-type]
        took = seconds()
    assert len(result.footers) == SHARDS and len(result.actors) == ACTORS
    return took / SHARDS, float(most_memory() - before)


def go_on() -> float:
    """Return the seconds that a run takes to find that all its shards, of one row each, are complete."""
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        (base / "list.txt").write_text("".join(f"{number:06d}.jpg\n" for number in range(SHARDS)))
        folder = open_folder(base / "codes")
        manifest = write_manifest(folder, open_source(base / "list.txt"), 1, "run")
        schema = schema_module.codes_schema(4, "float16")
        code = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(4, np.float16)), type=schema.field("code").type)
        values = {"path": pa.array(["photo"]), "status": pa.array(["ok"]), "code": code}
        arrays = [values.get(field.name, pa.nulls(1, field.type)) for field in schema]
        row = pa.RecordBatch.from_arrays(arrays, schema=schema)
        for shard in manifest.shards:
            expected = Footer(FINGERPRINT.digest, shard.number, shard.inputs_digest, 0, 0)
            shard_file.write_shard(folder, CODES, schema, [row], expected)
        begun = time.perf_counter()
        found = read_manifest(folder)
        assert found and len(completed(folder, CODES, found, FINGERPRINT.digest)) == SHARDS
        return time.perf_counter() - begun


def sizes(folder: str | None) -> dict[str, str]:
    """Return the bytes per photo of a manifest and, if photos are given, of their codes by random weights."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "codes")
        listed = plan.write_list(Path(scratch, "list.parquet"), LISTED)
        write_manifest(open_folder(out), open_source(listed), SHARD, "run")
        found = {"bytes of the manifest a photo": f"{_bytes(out / 'manifest') / LISTED:.1f}"}
        if folder:
            summary = fb.encode(folder, Path(scratch, "photos"), fb.EncodeConfig(weights="random:0"))
            found["bytes of a code"] = f"{_bytes(Path(scratch, 'photos', CODES)) / summary.images:.0f}"
        return found


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def main() -> None:
    """Measure everything, and report."""
    options = parse_arguments(__doc__)
    seconds, taken = drive()
    report(
        "scale",
        [
            # 256 actors of 2,000 images/s finish a shard each 8 milliseconds.
            Claim(f"driver's seconds per shard, {SHARDS} shards and {ACTORS} actors", seconds, 0.004, at_least=False),
            Claim("bytes that it takes for them", taken, 200e6, at_least=False),
            Claim(f"seconds to find {SHARDS} shards complete", go_on(), 60, at_least=False),
        ],
        {"images": SHARDS * SHARD, **sizes(options.photos)},
    )


if __name__ == "__main__":
    main()
