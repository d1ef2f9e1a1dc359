"""How busy a driver keeps many actors that sleep as a fast GPU would, on a simulated cluster: `python actors.py`."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

from flowers_batch.cluster import actors as actors_module
from flowers_batch.cluster import messages, pool
from flowers_batch.config import ClusterConfig
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.progress import Progress

GPU = 10_000  # images/s
SHARD = 4096  # images
SHARDS = 24  # for each actor
ACTORS = 16, 64
NODES = 4
FINGERPRINT = Fingerprint("null", "relu6", "null", "float32", "float16")


class SleepingActor:
    """Answers as `ShardActor` does in Ray, after the time that its GPU would take; two at once take turns."""

    def __init__(self, factory: NoFactory, url: str, kind: str, cpus: int):
        self._actors, self._meeting = factory.actors, Path(url)
        self._gpu, self._steps = threading.Lock(), 0

    def start(self) -> messages.ActorInfo:
        """Is ready when all are: starting so many on a few cores takes longer than the work."""
        (self._meeting / str(os.getpid())).touch()
        while len(list(self._meeting.iterdir())) < self._actors:
            time.sleep(0.1)
        return messages.ActorInfo(FINGERPRINT, "host", ())

    def run(self, shard: Shard, quarantined: Any, attempt: int) -> messages.ShardResult:
        """Sleeps."""
        with self._gpu:
            time.sleep(shard.images / GPU)
        self._steps += 1
        return messages.ShardResult(Footer("", shard.number, "", shard.images, 0), {"network": shard.images / GPU})

    def heartbeat(self) -> messages.Heartbeat:
        """Gets on with each shard."""
        return messages.Heartbeat("here", self._steps)

    heartbeat.__ray_concurrency_group__ = "position"  # type: ignore[attr-defined]


@dataclass(frozen=True)
class NoFactory:
    """Makes nothing, since the actors sleep; says how many there are."""

    actors: int
    wants_gpu = False

    def with_precision(self, precision: str) -> NoFactory:
        """The same."""
        return self


class Messages:
    """Shows messages only."""

    def update(self, progress: Progress) -> None:
        """Show nothing."""

    def message(self, sentence: str) -> None:
        """Show a message."""
        print(sentence, file=sys.stderr)


def efficiency(actors: int) -> float:
    """The part of the actors' time in which they had work, from the first shard that was handed out to the last."""
    shards = [Shard(number, SHARD, "") for number in range(actors * SHARDS)]
    config = ClusterConfig(actors=actors)
    with tempfile.TemporaryDirectory() as meeting:
        outcome = pool.run_shards(NoFactory(actors), meeting, CODES, shards, config, lambda made: None, Messages())
    assert len(outcome.footers) == len(shards) and outcome.deaths == 0
    return SHARDS * SHARD / GPU / outcome.seconds


def main() -> None:
    """Starts a cluster of several nodes on this machine, and lets it sleep."""
    import ray
    from ray.cluster_utils import Cluster

    common.parse_arguments(__doc__)
    actors_module._RemoteShardActor = SleepingActor  # the one thing that is not as in a run
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(NODES):
            nodes.add_node(num_cpus=max(ACTORS) // NODES, object_store_memory=100 << 20)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        found = common.run_interleaved(
            1, **{str(actors): lambda actors=actors: efficiency(actors) for actors in ACTORS}
        )
    finally:
        ray.shutdown()
        nodes.shutdown()
    common.report(
        "actors",
        [
            common.Claim(f"efficiency at {actors} actors of {GPU:,} images/s", found[str(actors)][0], 0.95)
            for actors in ACTORS
        ],
        {"shards of 4096 images for each actor": SHARDS, "nodes": NODES},
    )


if __name__ == "__main__":
    main()
