"""Reading photos from an object store that answers after 30 ms, against reading them from disk, by one decode worker.

The worker has a core of its own, the last one; the server and the process that gives the worker its photos share the
others. So the worker's CPU time and its waiting are measured, and not the server's work. Photos are small ones, and a
camera's. Each peer is warm, in a process of its own, and decodes the same photos in each round. Another process reads
a large object, to see how much memory that takes.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import common
import psutil
import pyarrow as pa
from slow_store import DELAY, ENVIRONMENT, RunningStore, slow_store

from flowers_batch.config import EncodeConfig
from flowers_batch.decoding.groups import requests_of
from flowers_batch.decoding.outputs import SquarePixels
from flowers_batch.decoding.pool import DecodePool, PoolSettings
from flowers_batch.decoding.tasks import TASKS_PER_WORKER, DecodedGroup
from flowers_batch.sources.images import Image
from flowers_batch.sources.opening import open_source

ROUNDS = 5
PHOTOS = {"small": 2560, "large": 60}  # in a round
GROUP = 32  # images that a worker is given at once: as if it were one of 16 that feed a GPU in batches of 256
FIRST, HUGE, HUGE_BYTES = "first.jpg", "huge.jpg", 200 << 20  # objects that are no photos; the second one's size
LEAST_RATIO = 0.9


class Worker:
    """A pool with one decode worker, which has a core of its own.

    Args:
        url: Where its photos are.
    """

    def __init__(self, url: str):
        source = open_source(url)
        self._requests = requests_of(pa.Table.from_batches(source.batches()))
        self._ahead = TASKS_PER_WORKER + 1
        own, others = divided_cores()
        os.sched_setaffinity(0, own)  # inherited by the worker
        settings = PoolSettings(1, EncodeConfig.max_pixels, EncodeConfig.image_timeout)
        self._pool = DecodePool(source, SquarePixels("uint8"), settings, self._ahead * GROUP)
        self._pool.submit(self._requests.slice(0, 1), 0).result()
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), others)

    def measure(self) -> list[float]:
        """Decode all photos once.

        Returns:
            Photos per second, and per photo the microseconds in which the worker waits for its bytes or reads them, and
            those of its CPU time.
        """
        waiting: deque[Future[DecodedGroup]] = deque()
        reading, before = 0.0, cpu_seconds()
        with common.stopwatch() as seconds:
            for number, first in enumerate(range(0, len(self._requests), GROUP)):
                if len(waiting) == self._ahead:
                    reading += seconds_of_reading(waiting.popleft())
                slot = number % self._ahead * GROUP
                waiting.append(self._pool.submit(self._requests.slice(first, GROUP), slot))
            reading += sum(map(seconds_of_reading, waiting))
            passed = seconds()
        count = len(self._requests)
        return [count / passed, reading / count * 1e6, (cpu_seconds() - before) / count * 1e6]


def divided_cores() -> tuple[list[int], list[int]]:
    """Return the worker's core, and those of all else, which is the same one if there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[-1:], cores[:-1] or cores


def seconds_of_reading(group: Future[DecodedGroup]) -> float:
    """Return the seconds that a worker spent on reading a group, all of which must be decoded."""
    decoded = group.result()
    assert decoded.rows["reason"].null_count == len(decoded.rows), decoded.rows["reason"]
    return decoded.read_seconds


def cpu_seconds() -> float:
    """Return the CPU time of the processes below this one."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(each.user + each.system for each in times)


class Peer:
    """A worker in another process, and what it measured in all rounds.

    Args:
        measure: Has it decode all photos once.
    """

    def __init__(self, measure: Callable[[], Any]):
        self._measure = measure
        self.reading: list[float] = []  # microseconds per photo
        self.cpu: list[float] = []  # likewise

    def rate(self) -> float:
        """Return photos per second."""
        rate, reading, cpu = self._measure()
        self.reading.append(reading)
        self.cpu.append(cpu)
        return rate


def copies_of_object(url: str) -> float:
    """Return the growth of this process's most memory while it reads a large object, over the object's size."""
    source = open_source(url)
    source.read(Image(FIRST))  # loads libraries, and connects
    before = common.most_memory()
    assert len(source.read(Image(HUGE))) == HUGE_BYTES
    return (common.most_memory() - before) / HUGE_BYTES


def main() -> None:
    """Compare a store with the disk, or be a peer."""
    options = common.parse_arguments(
        __doc__,
        camera=common.CAMERA_OPTION,
        peer={"choices": ["worker", "reader"], "help": "be this peer; the benchmark starts its peers with this option"},
        url={"help": "a peer's photos"},
    )
    if options.peer == "worker":
        common.serve(Worker(options.url).measure)
    elif options.peer == "reader":
        common.serve(partial(copies_of_object, options.url))
    else:
        os.environ |= ENVIRONMENT
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "photos")
            write_photos(folder, options.photos, options.camera)
            with slow_store(folder, divided_cores()[1]) as store:
                compare(folder, store)


def write_photos(folder: Path, photos: Path | None, camera: Path | None) -> None:
    """Write small photos, a camera's, and a large object into folders."""
    found = common.find_photos(photos, folder.with_name("scratch"))
    common.write_archive(found, folder / "small", PHOTOS["small"])
    if camera:
        large = common.find_photos(camera, folder)
    else:
        large = [folder.with_name(f"{number}.jpg") for number in range(4)]
        for path, source in zip(large, found, strict=False):
            path.write_bytes(common.enlarge(source, *common.CAMERA_SIZE))
    common.write_archive(large, folder / "large", PHOTOS["large"])
    (folder / "huge").mkdir()
    (folder / "huge" / FIRST).write_bytes(b"small")
    (folder / "huge" / HUGE).write_bytes(bytes(HUGE_BYTES))


def compare(folder: Path, store: RunningStore) -> None:
    """Compare a store with the disk, and report."""
    claims: list[common.Claim] = []
    figures: dict[str, object] = {"cores": os.cpu_count(), "delay, ms": f"{DELAY * 1000:g}", "decode workers": 1}
    for size, count in PHOTOS.items():
        with (
            common.warm_process(__file__, "--peer", "worker", "--url", folder / size) as from_disk,
            common.warm_process(__file__, "--peer", "worker", "--url", store.url_of(size)) as from_store,
        ):
            peers = {"disk": Peer(from_disk), "store": Peer(from_store)}
            store.requests()
            rates = common.run_interleaved(ROUNDS, **{name: peer.rate for name, peer in peers.items()})
            requests = store.requests().total() / (ROUNDS * count)
        name = f"{size} photos"
        claims.append(
            common.ratio_claim(f"{name}: rate from the store over disk", rates["store"], rates["disk"], LEAST_RATIO)
        )
        claims.append(common.Claim(f"{name}: requests each", requests, 1.0, at_least=False))
        for kind, peer in peers.items():
            about = f"{name} from {kind}"
            figures[f"{about}, photos/s"] = f"{statistics.median(rates[kind]):.0f}"
            figures[f"{about}, microseconds of waiting for bytes or reading them"] = (
                f"{statistics.median(peer.reading):.0f}"
            )
            figures[f"{about}, microseconds of the worker's CPU time"] = f"{statistics.median(peer.cpu):.0f}"
        figures[f"{name}: reads on their way, rate times delay"] = f"{statistics.median(rates['store']) * DELAY:.1f}"
    copies = common.run_once(__file__, "--peer", "reader", "--url", store.url_of("huge"))
    claims.append(common.Claim(f"memory that reading {HUGE_BYTES >> 20} MiB takes, over that", copies, 1.15, False))
    common.report("store", claims, figures)


if __name__ == "__main__":
    main()
