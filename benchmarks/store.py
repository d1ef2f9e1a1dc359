"""Reading photos from an object store that answers after 30 ms, against reading them from disk, by one decode worker.

The worker has a core of its own. The server and the process that gives the worker its photos share the other cores, as
far as there are any, so that what is measured is the worker's CPU time and waiting, and not the server's. Photos are
small ones, and a camera's. Each peer is warm, in a process of its own, and decodes the same photos in each round.
Another process reads a large object, to see how much memory that takes.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections import deque
from functools import partial
from pathlib import Path

import common
import pyarrow as pa
from slow_store import DELAY, ENVIRONMENT, RunningStore, slow_store

ROUNDS = 5
PHOTOS = {"small": 1280, "large": 40}  # in a round
CAMERA = 4000, 3000  # pixels: width and height of enlarged photos
CAMERA_VARIABLE = "FLOWERS_BATCH_CAMERA_PHOTOS"  # names a folder of photos, as for the tests
GROUP = 32  # images that a worker is given at once: as if it were one of 16 that feed a GPU in batches of 256
FIRST, HUGE, HUGE_BYTES = "first.jpg", "huge.jpg", 200 << 20  # objects that are no photos; the second one's size
LEAST_RATIO = 0.9


class Worker:
    """A pool with one decode worker, which has a core of its own.

    Args:
        url: Where its photos are.
    """

    def __init__(self, url: str):
        from flowers_batch.config import EncodeConfig
        from flowers_batch.decoding.groups import requests_of
        from flowers_batch.decoding.outputs import SquarePixels
        from flowers_batch.decoding.pool import DecodePool, PoolSettings
        from flowers_batch.decoding.tasks import TASKS_PER_WORKER
        from flowers_batch.sources.opening import open_source

        source = open_source(url)
        self._requests = requests_of(pa.Table.from_batches(source.batches()))
        self._ahead = TASKS_PER_WORKER + 1
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-1:])  # inherited by the worker
        settings = PoolSettings(1, EncodeConfig.max_pixels, EncodeConfig.image_timeout)
        self._pool = DecodePool(source, SquarePixels("uint8"), settings, self._ahead * GROUP)
        self._pool.submit(self._requests.slice(0, 1), 0).result()
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), cores[:-1] or cores)

    def rate(self) -> float:
        """Return the photos per second of one round."""
        with common.stopwatch() as seconds:
            waiting: deque = deque()
            for number, first in enumerate(range(0, len(self._requests), GROUP)):
                if len(waiting) == self._ahead:
                    self._check(waiting.popleft().result().rows)
                slot = number % self._ahead * GROUP
                waiting.append(self._pool.submit(self._requests.slice(first, GROUP), slot))
            for future in waiting:
                self._check(future.result().rows)
            return len(self._requests) / seconds()

    @staticmethod
    def _check(rows: pa.RecordBatch) -> None:
        assert rows["reason"].null_count == len(rows), rows["reason"]


def copies_of_object(url: str) -> float:
    """Return the growth of this process's most memory while it reads a large object, over the object's size."""
    from flowers_batch.sources.images import Image
    from flowers_batch.sources.opening import open_source

    source = open_source(url)
    source.read(Image(FIRST))  # loads libraries, and connects
    before = most_memory()
    assert len(source.read(Image(HUGE))) == HUGE_BYTES
    return (most_memory() - before) / HUGE_BYTES


def most_memory() -> int:
    """Return the most bytes that this process has held."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Compare a store with the disk, or be a peer."""
    options = common.parse_arguments(
        __doc__,
        camera={
            "type": Path,
            "default": os.environ.get(CAMERA_VARIABLE),
            "help": f"a folder of a camera's photos (default: ${CAMERA_VARIABLE}, else enlarged photos)",
        },
        peer={"choices": ["worker", "reader"], "help": "be this peer; the benchmark starts its peers with this option"},
        url={"help": "a peer's photos"},
    )
    if options.peer == "worker":
        common.serve(Worker(options.url).rate)
    elif options.peer == "reader":
        common.serve(partial(copies_of_object, options.url))
    else:
        os.environ |= ENVIRONMENT
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "photos")
            write_photos(folder, options.photos, options.camera)
            with slow_store(folder) as store:
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
            path.write_bytes(common.enlarge(source, *CAMERA))
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
            store.requests()
            rates = common.run_interleaved(ROUNDS, disk=from_disk, store=from_store)
            requests = store.requests().total() / (ROUNDS * count)
        name = f"{size} photos"
        claims.append(
            common.ratio_claim(f"{name}: rate from the store over disk", rates["store"], rates["disk"], LEAST_RATIO)
        )
        claims.append(common.Claim(f"{name}: requests each", requests, 1.0, at_least=False))
        medians = {peer: statistics.median(found) for peer, found in rates.items()}
        figures |= {f"{name} from {peer}, photos/s": f"{median:.0f}" for peer, median in medians.items()}
        figures[f"{name}: reads in flight that hide the delay"] = f"{medians['disk'] * DELAY:.1f}"
    copies = common.run_once(__file__, "--peer", "reader", "--url", store.url_of("huge"))
    claims.append(common.Claim(f"memory that reading {HUGE_BYTES >> 20} MiB takes, over that", copies, 1.15, False))
    common.report("store", claims, figures)


if __name__ == "__main__":
    main()
