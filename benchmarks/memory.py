"""Memory of an actor and of its decode workers, and whether it grows with the shards.

Shared memory with the decoded photos is not counted: its size is a number of batches.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import psutil
from lone_actor import LoneActor
from numpy.typing import NDArray

from flowers_batch.config import EncodeConfig
from flowers_batch.encoding.encoder import Encoder
from flowers_batch.encoding.factories import EncoderFactory
from flowers_batch.encoding.results import CodeResults
from flowers_batch.sources.opening import open_source

TINY_PHOTOS = 65_536
SMALL, LARGE = 4096, 65_536  # images per shard: by default, and many more
WIDTH = 4096  # of relu6
PHOTOS, WORKERS, MAX_MEGABYTES = 2048, 16, 120.0
BUFFER = "decoded images"  # in the name of the shared memory
SECONDS = 0.5  # between two looks


def wide(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return codes of VGG16's width from each photo's first pixels: no network, whose memory would hide the codes'."""
    return pixels.reshape(len(pixels), -1)[:, :WIDTH].astype(np.float32)


class Factory(EncoderFactory):
    """Makes encoders of wide codes."""

    def __call__(self, threads: int, gpu: bool, progress: Callable[[], None] = lambda: None) -> Encoder:
        """Return an encoder without a network."""
        made = super().__call__(threads, gpu, progress)
        pool = made._feed.pool
        return Encoder(wide, CodeResults(WIDTH, "float16"), pool, made.fingerprint, self.config.batch_size)


def private_bytes(process: int) -> int:
    """Return the memory of a process: shared pages by the share of each process, without the decoded photos."""
    total, counts = 0, True
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name.split(" ")[0]:  # a mapping begins: addresses, rights, ..., name
            counts = BUFFER not in line
        elif name == "Pss" and counts:
            total += int(rest.split()[0]) * 1024
    return total


class Watch:
    """Looks again and again at the memory of this process, of the fork server and of the decode workers.

    Attributes:
        total: The most bytes of all together.
        worker: The most bytes of a decode worker.
    """

    def __init__(self) -> None:
        self.total = self.worker = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        this = psutil.Process()
        while not self._ended.wait(SECONDS):
            bytes_by_process = {process.pid: private_bytes(process.pid) for process in [this, *this.children(True)]}
            self.total = max(self.total, sum(bytes_by_process.values()))
            servers = {this.pid, *(process.pid for process in this.children())}
            workers = [used for process, used in bytes_by_process.items() if process not in servers]
            self.worker = max([self.worker, *workers])


def peaks(archive: Path, shard_size: int, workers: int) -> list[float]:
    """Encode an archive as an actor does, two shards at once.

    Returns:
        The most megabytes of all processes together, and of a decode worker.
    """
    factory = Factory(EncodeConfig(network="null", batch_size=32), open_source(archive))
    with tempfile.TemporaryDirectory() as out:
        actor = LoneActor(factory, out, shard_size, workers)
        with Watch() as watch:
            done = actor.encode(actor.shards)
        assert done == sum(shard.images for shard in actor.shards)
    return [watch.total / 1e6, watch.worker / 1e6]


def main() -> None:
    """Measure each kind of run in a process of its own, and report."""
    arguments = common.parse_arguments(
        __doc__,
        archive={"type": Path, "help": "a peer's photos; the benchmark starts its peers with this option"},
        shard_size={"type": int, "help": "a peer's images per shard"},
        workers={"type": int, "help": "a peer's decode workers"},
    )
    if arguments.archive:
        common.serve(partial(peaks, arguments.archive, arguments.shard_size, arguments.workers))
        return
    with tempfile.TemporaryDirectory() as scratch:
        found = common.find_photos(arguments.photos, Path(scratch))
        tiny = Path(scratch, "tiny")
        tiny.mkdir()
        for number, path in enumerate(found[:64]):
            (tiny / f"{number}.jpg").write_bytes(common.enlarge(path, 64, 48))
        many = common.write_archive(sorted(tiny.iterdir()), Path(scratch, "many"), TINY_PHOTOS)
        photos = common.write_archive(found, Path(scratch, "photos"), PHOTOS)

        def megabytes(archive: Path, shard_size: int, workers: int) -> list[float]:
            options = ("--archive", archive, "--shard-size", shard_size, "--workers", workers)
            return common.run_once(__file__, *options)

        cores = os.cpu_count() or 1
        totals = common.run_interleaved(
            1,
            small=lambda: megabytes(many, SMALL, cores)[0],
            large=lambda: megabytes(many, LARGE, cores)[0],
        )
        all_processes, worker = megabytes(photos, PHOTOS, WORKERS)
    common.report(
        "memory",
        [
            common.ratio_claim(
                f"memory of an actor with its workers, shards of {LARGE} over {SMALL}",
                totals["large"],
                totals["small"],
                1.1,
                False,
            ),
            common.Claim(f"megabytes of the largest of {WORKERS} decode workers", worker, MAX_MEGABYTES, False),
        ],
        {
            f"megabytes with {cores} workers": {name: round(total) for name, (total,) in totals.items()},
            f"megabytes with {WORKERS} workers": round(all_processes),
        },
    )


if __name__ == "__main__":
    main()
