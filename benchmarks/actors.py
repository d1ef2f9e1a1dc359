"""How busy a driver keeps many actors, which sleep as long as a fast GPU would compute: `python actors.py`."""

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
import ray
from ray.cluster_utils import Cluster

from flowers_batch.cluster import messages, remote_actors
from flowers_batch.cluster.driver import run_shards
from flowers_batch.cluster.restricted_access import restricted_access
from flowers_batch.config import ClusterConfig
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.progress import Progress

GPU = 10_000  # images/s
SHARD = 4096  # images
SHARDS = 24  # per actor
ACTORS = 16, 64
NODES = 4
FINGERPRINT = Fingerprint("null", "relu6", "null", "float32", "float16")


class SleepingActor:
    """Answers as `RemoteShardActor` does, after the time that a GPU would take; two shards at once take turns."""

    def __init__(self, job: messages.ShardJob, resources: Any):
        self._actors, self._meeting = job.factory.actors, Path(job.url)
        self._gpu, self._steps = threading.Lock(), 0

    def start(self) -> messages.ActorInfo:
        """Wait until all are ready: starting them on a few cores takes longer than the work."""
        (self._meeting / str(os.getpid())).touch()
        while len(list(self._meeting.iterdir())) < self._actors:
            time.sleep(0.1)
        return messages.ActorInfo(FINGERPRINT, "host", ())

    def run(self, shard: Shard, attempt: int) -> messages.ShardResult:
        """Sleep."""
        with self._gpu:
            time.sleep(shard.images / GPU)
        self._steps += 1
        return messages.ShardResult(Footer("", shard.number, "", shard.images, 0), {"network": shard.images / GPU})

    @ray.method(concurrency_group=remote_actors.HEARTBEAT_GROUP)
    def heartbeat(self) -> messages.Heartbeat:
        """Return a step per shard."""
        return messages.Heartbeat("here", self._steps)


@dataclass(frozen=True)
class NoFactory:
    """Makes no workers, since the actors sleep; says how many there are."""

    actors: int
    wants_gpu = False

    def with_precision(self, precision: str) -> NoFactory:
        """Return itself."""
        return self


class Messages:
    """Shows messages only."""

    def update(self, progress: Progress) -> None:
        """Show nothing."""

    def message(self, sentence: str) -> None:
        """Show a message."""
        print(sentence, file=sys.stderr)


def efficiency(actors: int) -> float:
    """Return the part of the actors' time in which they had work, from the first dispatch to the last result."""
    shards = [Shard(number, SHARD, "") for number in range(actors * SHARDS)]
    config = ClusterConfig(actors=actors)
    with tempfile.TemporaryDirectory() as meeting:
        job = messages.ShardJob(NoFactory(actors), meeting, CODES)  # type: ignore[arg-type]
        result = run_shards(job, shards, config, lambda fingerprint: None, Messages())
    assert len(result.footers) == len(shards) and result.deaths == 0
    return SHARDS * SHARD / GPU / result.seconds


def main() -> None:
    """Start a cluster of several nodes on this machine, and let its actors sleep."""
    common.parse_arguments(__doc__)
    remote_actors.RemoteShardActor = SleepingActor  # all else is as in a run
    with restricted_access():
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
        {"shards of 4096 images per actor": SHARDS, "nodes": NODES},
    )


if __name__ == "__main__":
    main()
