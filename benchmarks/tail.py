"""The end of a run on mixed hardware: with and without handing out the last shards twice, in a Ray with two actors.

One actor is several times slower than the other, as an old GPU beside a new one.
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

from common import parse_arguments, ratio_claim, report, run_interleaved

from flowers_batch.cluster import messages, pool
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
    """Answers as `actors_module.ShardActor` does in Ray; the first that starts is the slow one."""

    def __init__(self, factory: NoFactory, url: str, kind: str, cpus: int):
        self._folder, self._rows = Path(url), dict[int, tuple[int, int]]()
        self._gpu, self._steps, self._rate = threading.Lock(), 0, FAST

    def start(self) -> messages.ActorInfo:
        """Is ready when both are."""
        try:
            (self._folder / "slow").touch(exist_ok=False)
            self._rate = SLOW
        except FileExistsError:
            pass
        (self._folder / f"ready-{os.getpid()}").touch()
        while len(list(self._folder.glob("ready-*"))) < 2:
            time.sleep(0.05)
        return messages.ActorInfo(FINGERPRINT, "host", ())

    def run(self, shard: Shard, quarantined: Any, attempt: int) -> messages.ShardResult:
        """Sleeps, and gets on by hundreds."""
        with self._gpu:
            for done in range(0, shard.images, 100):
                self._rows[shard.number] = done, 0
                self._steps += 1
                time.sleep(100 / self._rate)
            self._rows.pop(shard.number)
        return messages.ShardResult(Footer("", shard.number, "", shard.images, 0), {})

    def heartbeat(self) -> messages.Heartbeat:
        """How far it is."""
        return messages.Heartbeat("here", self._steps, self._rows.copy())

    heartbeat.__ray_concurrency_group__ = "position"  # type: ignore[attr-defined]


@dataclass(frozen=True)
class NoFactory:
    """Makes nothing, since the actors sleep."""

    wants_gpu = False

    def with_precision(self, precision: str) -> NoFactory:
        """The same."""
        return self


def seconds(copies: int) -> float:
    """Of a run in which so many actors work on a shard at most."""
    shards = [Shard(number, SHARD, "") for number in range(SHARDS)]
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(pool, "_RemoteShardActor", Uneven),
        mock.patch.object(pool, "_COPIES", copies),
    ):
        settings = ClusterConfig(actors=2)
        outcome = pool.run_shards(NoFactory(), folder, CODES, shards, settings, lambda found: None, NULL_REPORTER)  # type: ignore[arg-type]
    assert len(outcome.footers) == SHARDS
    return outcome.seconds


def main() -> None:
    """Measures in turn, and tells."""
    parse_arguments(__doc__)
    import ray

    ray.init(address="local", num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    taken = run_interleaved(ROUNDS, once=lambda: seconds(1), twice=lambda: seconds(2))
    ray.shutdown()
    best = SHARDS * SHARD / (FAST + SLOW)
    report(
        "tail",
        [
            ratio_claim(
                "seconds of a run whose last shards are handed out twice, over once",
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
