"""The end of a run on mixed hardware, with and without speculative execution, in a Ray with two actors.

One actor is several times slower than the other, like an old GPU beside a new one.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import ray
from common import parse_arguments, ratio_claim, report, run_interleaved

from flowers_batch.cluster import messages, remote_actors
from flowers_batch.cluster.driver import run_shards
from flowers_batch.cluster.restricted_access import restricted_access
from flowers_batch.config import ClusterConfig
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.progress import NULL_REPORTER

SHARDS, SHARD = 12, 1000  # images
FAST, SLOW = 1000, 150  # images/s
ROUNDS = 3
FINGERPRINT = Fingerprint("null", "relu6", "null", "float32", "float16")


class Uneven:
    """Answers as `RemoteShardActor` does; the first that starts is the slow one."""

    def __init__(self, job: messages.ShardJob, resources: Any):
        self._folder, self._rows = Path(job.url), dict[int, tuple[int, int]]()
        self._gpu, self._steps, self._rate = threading.Lock(), 0, FAST

    def start(self) -> messages.ActorInfo:
        """Wait until both are ready."""
        try:
            (self._folder / "slow").touch(exist_ok=False)
            self._rate = SLOW
        except FileExistsError:
            pass
        (self._folder / f"ready-{os.getpid()}").touch()
        while len(list(self._folder.glob("ready-*"))) < 2:
            time.sleep(0.05)
        return messages.ActorInfo(FINGERPRINT, "host", ())

    def run(self, shard: Shard, attempt: int) -> messages.ShardResult:
        """Sleep, with progress every hundred images."""
        with self._gpu:
            for done in range(0, shard.images, 100):
                self._rows[shard.number] = done, 0
                self._steps += 1
                time.sleep(100 / self._rate)
            self._rows.pop(shard.number)
        return messages.ShardResult(Footer("", shard.number, "", shard.images, 0), {})

    @ray.method(concurrency_group=remote_actors.HEARTBEAT_GROUP)
    def heartbeat(self) -> messages.Heartbeat:
        """Return its progress."""
        return messages.Heartbeat("here", self._steps, self._rows.copy())


@dataclass(frozen=True)
class NoFactory:
    """Makes no workers, since the actors sleep."""

    wants_gpu = False

    def with_precision(self, precision: str) -> NoFactory:
        """Return itself."""
        return self


def seconds(max_copies: int) -> float:
    """Return the seconds of a run in which at most `max_copies` actors work on the same shard."""
    shards = [Shard(number, SHARD, "") for number in range(SHARDS)]
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(remote_actors, "RemoteShardActor", Uneven),
    ):
        job = messages.ShardJob(NoFactory(), folder, CODES)  # type: ignore[arg-type]
        settings = ClusterConfig(actors=2)
        result = run_shards(job, shards, settings, lambda fingerprint: None, NULL_REPORTER, max_copies)
    assert len(result.footers) == SHARDS
    return result.seconds


def main() -> None:
    """Measure in turn, and report."""
    parse_arguments(__doc__)
    with restricted_access():
        ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
        taken = run_interleaved(ROUNDS, once=lambda: seconds(1), twice=lambda: seconds(2))
        ray.shutdown()
    best = SHARDS * SHARD / (FAST + SLOW)
    report(
        "tail",
        [
            ratio_claim(
                "seconds of a run with speculative execution, over one without",
                taken["twice"],
                taken["once"],
                0.9,
                False,
            )
        ],
        {
            "seconds, once and twice": f"{min(taken['once']):.1f} and {min(taken['twice']):.1f}",
            "seconds if both were busy to the end": f"{best:.1f}",
        },
    )


if __name__ == "__main__":
    main()
