"""An actor's work in this process, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flowers_batch.cluster.actors import ShardActor
from flowers_batch.cluster.messages import ShardJob
from flowers_batch.dataset.growth import write_manifest
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard import Shard
from flowers_batch.encoding.factories import EncoderFactory
from flowers_batch.storage.opening import open_folder


class LoneActor:
    """An actor that is ready, and its shards.

    Args:
        factory: Makes its encoder.
        out: The run's folder.
        shard_size: Images per shard.
        workers: Processes that decode.
    """

    def __init__(self, factory: EncoderFactory, out: str, shard_size: int, workers: int):
        self.shards = write_manifest(open_folder(out), factory.source, shard_size, "run").shards
        self._out = Path(out)
        self._actor = ShardActor(ShardJob(factory, out, CODES), workers, (), "here")
        self._actor.start()

    def encode(self, shards: Sequence[Shard]) -> int:
        """Encode shards, two at once, and return how many images are ok; the codes are not kept."""
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(self._encode, shards))

    def _encode(self, shard: Shard) -> int:
        result = self._actor.run(shard)
        for path in self._out.glob(f"{CODES}/shard-{shard.number:06d}*"):
            path.unlink()  # an actor that is given the shard again would copy its rows
        return result.footer.ok
