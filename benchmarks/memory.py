"""An actor's peak memory with large shards, compared with that with small shards of the same images."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import common
import numpy as np
from numpy.typing import NDArray

from flowers_batch.cluster.actors import ShardActor
from flowers_batch.cluster.messages import ShardJob
from flowers_batch.dataset.growth import write_manifest
from flowers_batch.dataset.schema import CODES
from flowers_batch.encoding.encoder import Encoder
from flowers_batch.encoding.factories import EncoderFactory
from flowers_batch.encoding.feed import FeedSettings
from flowers_batch.progress import no_progress
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.opening import open_folder

IMAGES = 65_536
SMALL, LARGE = 512, 65_536  # images per shard
WIDTH = 4096  # of relu6


def wide(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return codes of VGG16's width from each photo's first pixels: no network, whose memory would hide the codes'."""
    return pixels.reshape(len(pixels), -1)[:, :WIDTH].astype(np.float32)


class Factory(EncoderFactory):
    """Makes encoders of wide codes."""

    def __call__(self, threads: int, gpu: bool, progress: Callable[[], None] = no_progress) -> Encoder:
        """Return an encoder without a network."""
        made = super().__call__(threads, gpu, progress)
        settings = FeedSettings(32, np.float32, made.fingerprint.code_dtype, threads, self.config.max_pixels)
        return Encoder(wide, WIDTH, self.source, made.fingerprint, settings)


def peak(archive: Path, shard_size: int) -> int:
    """Encode an archive as an actor does, two shards at once; return this process's peak memory in bytes."""
    from flowers_batch.config import EncodeConfig

    source = open_source(archive)
    with tempfile.TemporaryDirectory() as out:
        shards = write_manifest(open_folder(out), source, shard_size, "run").shards
        actor = ShardActor(ShardJob(Factory(EncodeConfig(network="null"), source), out, CODES), 2, (), "here")
        actor.start()
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda shard: actor.run(shard), shards))
        assert sum(each.footer.ok for each in done) == IMAGES
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure each shard size in a process of its own, and report the ratio."""
    arguments = common.parse_arguments(
        __doc__,
        archive={"type": Path, "help": "the images; the benchmark starts its child processes with this option"},
        shard_size={"type": int, "help": "images per shard, in a child process"},
    )
    if arguments.archive:
        print(peak(arguments.archive, arguments.shard_size))
        return
    with tempfile.TemporaryDirectory() as scratch:
        small = Path(scratch, "small")
        small.mkdir()
        for number, path in enumerate(common.find_photos(arguments.photos, Path(scratch))[:64]):
            (small / f"{number}.jpg").write_bytes(common.enlarge(path, 64, 48))
        archive = common.write_archive(sorted(small.iterdir()), Path(scratch, "archive"), IMAGES)

        def measured(shard_size: int) -> float:
            command = [sys.executable, __file__, "--archive", str(archive), "--shard-size", str(shard_size)]
            return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1e6

        peaks = common.run_interleaved(1, small=lambda: measured(SMALL), large=lambda: measured(LARGE))
    common.report(
        "memory",
        [
            common.ratio_claim(
                f"peak memory of an actor, shards of {LARGE} over {SMALL}", peaks["large"], peaks["small"], 1.1, False
            )
        ],
        {"megabytes": peaks},
    )


if __name__ == "__main__":
    main()
