"""Feeds a network: images are decoded ahead into batches, and their codes come back in the images' order.

The shared memory of the decode workers is divided into buffers, each of which holds a batch. Consecutive images of a
shard get a buffer's slots in their order; when all of them were decoded, the network takes the buffer as it is, and
frees it once the codes are there. Without a free buffer no more images are decoded, which is the back-pressure from a
slow network. A shard's images are submitted after all those of the shard before, so that its first batches are decoded
while the last ones of that are still being computed.
"""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from queue import SimpleQueue
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.decoding.pixels import Pixels
from flowers_batch.decoding.pool import GROUP
from flowers_batch.decoding.tasks import TASKS_PER_WORKER
from flowers_batch.encoding.daemon_threads import DaemonThreads
from flowers_batch.encoding.pixel_pools import PixelPool
from flowers_batch.encoding.shard_feed import CodeArray, FedBatch, PixelBatch, ShardFeed
from flowers_batch.encoding.stages import Stages, add_seconds
from flowers_batch.errors import RunError

# Pixels [N, 224, 224, 3] to codes [N, width]: an array, or a value that `np.asarray` waits for and converts.
Network = Callable[[Pixels], Any]
_STAGES = "read", "decode", "wait", "network"
_MIN_GROUP = 4  # smaller groups cost more messages than they help to divide the work
_MORE_BUFFERS = 3  # one in the network, one ready for it, one whose last image takes long


def group_size(workers: int, batch_size: int) -> int:
    """Return how many images a decode worker is given at once."""
    return min(GROUP, max(_MIN_GROUP, TASKS_PER_WORKER * batch_size // workers), batch_size)


def count_buffers(workers: int, batch_size: int) -> int:
    """Return how many batches of pixels keep both the decode workers and the network busy."""
    return -(-TASKS_PER_WORKER * workers * group_size(workers, batch_size) // batch_size) + _MORE_BUFFERS


class FeedThreads:
    """The threads of a feed.

    Attributes:
        submitting: Gives images to the decode workers.
        launching: Calls the network.
        fetching: Waits for codes.
    """

    def __init__(self) -> None:
        self.submitting, self.launching = DaemonThreads(1, "submit"), DaemonThreads(1, "launch")
        self.fetching = DaemonThreads(1, "fetch")

    def join(self) -> None:
        """End all threads."""
        for threads in (self.submitting, self.launching, self.fetching):
            threads.join()


class Feed:
    """Decode workers, a network, and the buffers between them.

    Args:
        network: What computes the codes.
        pool: The decode workers, with slots for `count_buffers` batches.
        batch_size: Images in one pass through the network; the size of the last batch of a shard is rounded up to a
            power of two, so that the network sees few shapes.
        code_dtype: The codes' type, float16 or float32.

    Attributes:
        pool, batch_size: As given.
        free: Numbers of the buffers that are free.
    """

    def __init__(self, network: Network, pool: PixelPool, batch_size: int, code_dtype: str):
        self._network, self.pool, self.batch_size, self._code_dtype = network, pool, batch_size, code_dtype
        self.free: SimpleQueue[int] = SimpleQueue()
        for buffer in range(len(pool.slots) // batch_size):
            self.free.put(buffer)
        self._threads = FeedThreads()
        self._running: set[ShardFeed] = set()
        self._progress = _Progress()
        _FEEDS.add(self)

    @property
    def group_size(self) -> int:
        """How many images a decode worker is given at once."""
        return group_size(self.pool.settings.workers, self.batch_size)

    @property
    def steps(self) -> int:
        """Grows as long as images are decoded and computed."""
        return self.pool.steps + self._progress.batches

    def run(self, requests: pa.RecordBatch, stages: Stages) -> Iterator[FedBatch]:
        """Feed a shard's images to the network, and yield their results in their order, batch by batch.

        Another thread may call it while an earlier call runs: its images follow those of the first.

        Args:
            requests: The shard's images, with the columns `decoding.groups.REQUESTS`.
            stages: Gains the seconds spent in `read` and `decode` (by all workers together), `wait` (in which the
                network had no batch) and `network`.

        Raises:
            FlowersError: A code does not fit into the type that it is stored in, or as the decode workers raise it.
        """
        for name in _STAGES:  # in the order in which they are shown
            add_seconds(stages, name, 0.0)
        shard = ShardFeed(self, requests, stages)
        self._progress.begin(is_first=not self._running)
        self._running.add(shard)
        try:
            self._threads.submitting.submit(shard.submit_all)
            yield from shard.results()
        finally:
            shard.stop()
            self._running.discard(shard)

    def end(self) -> None:
        """Abandon all runs, and end the threads and the decode workers."""
        for shard in list(self._running):
            shard.stop()
        self.pool.close()
        self._threads.join()

    def compute(self, batch: PixelBatch) -> None:
        """Have the network compute a batch's codes, after the batches that it was given before."""
        self._threads.launching.submit(self._launch, batch)

    def _launch(self, batch: PixelBatch) -> None:
        # Another thread fetches: where the device computes after the call returns, the next batch is copied meanwhile.
        started = time.perf_counter()
        try:
            if batch.shard.is_stopped:
                raise CancelledError
            ok = batch.decoded()
            launched = self._network(self._pixels(batch)) if ok.any() else None
        except BaseException as error:
            self._finish(batch, error)
        else:
            self._threads.fetching.submit(self._fetch, batch, ok, launched, started)

    def _pixels(self, batch: PixelBatch) -> Pixels:
        size = min(1 << (len(batch.requests) - 1).bit_length(), self.batch_size)
        first = batch.buffer * self.batch_size
        return self.pool.slots[first : first + size]

    def _fetch(self, batch: PixelBatch, ok: NDArray[np.bool_], launched: Any, started: float) -> None:
        try:
            codes: CodeArray | BaseException | None = None
            if launched is not None:
                codes = _as_stored(np.asarray(launched)[: len(ok)][ok], self._code_dtype)
        except BaseException as error:
            codes = error
        self._progress.add_batch(started, batch.shard.stages)
        self._finish(batch, codes)

    def _finish(self, batch: PixelBatch, codes: CodeArray | BaseException | None) -> None:
        """Free a batch's buffer, and set its codes or the error in place of them."""
        self.free.put(batch.buffer)
        if isinstance(codes, BaseException):
            batch.codes.set_exception(codes)
        else:
            batch.codes.set_result(codes)


class _Progress:
    """Batches so far, and when the network was last busy."""

    def __init__(self) -> None:
        self.batches, self._last_fetch = 0, time.perf_counter()

    def begin(self, *, is_first: bool) -> None:
        """Begin a shard; before the first one, the network did not wait."""
        if is_first:
            self._last_fetch = time.perf_counter()

    def add_batch(self, started: float, stages: Stages) -> None:
        now = time.perf_counter()
        add_seconds(stages, "wait", max(0.0, started - self._last_fetch))
        add_seconds(stages, "network", now - max(started, self._last_fetch))
        self._last_fetch = now
        self.batches += 1


_FEEDS: weakref.WeakSet[Feed] = weakref.WeakSet()


@atexit.register
def _end_feeds() -> None:
    """End all threads: one that runs a library's code when Python is finalized would abort the process."""
    for feed in list(_FEEDS):
        feed.end()


def _as_stored(codes: NDArray[Any], code_dtype: str) -> CodeArray:
    """Return codes in the type that they are stored in, so that labels from photos equal labels from stored codes."""
    if code_dtype == "uint8":  # pixels
        return codes
    with np.errstate(over="ignore"):
        stored = codes.astype(code_dtype)
    if not np.isfinite(stored).all():
        worst = np.abs(codes).max()
        raise RunError(
            f"A code contains {worst:g}, which {code_dtype} cannot represent: "
            + ("encode with `code_dtype` float32." if np.isfinite(worst) else "check the network's weights.")
        )
    return stored
