"""Feeds a network: images are read and decoded ahead into batches, and codes are put back in the images' order.

Threads take the images of a shard one after the other. Each decodes its image straight into the next free slot of
the batch that is being filled, so a batch holds whatever was ready first. A full batch goes to the network; while that
is busy with it, the next ones are filled. A few pixel buffers are reused; threads block when no buffer is
free, which is the back-pressure from a slow network. Threads that reach the end of a shard begin with the next one
while the last batches of the first are still being computed.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from flowers_batch.decoding.process_limits import PIXELS_PER_THREAD, PixelBudget
from flowers_batch.decoding.resizing import SIDE, Pixels
from flowers_batch.encoding.daemon_threads import DaemonThreads
from flowers_batch.encoding.pending_image import CodeArray, PendingImage, PixelBatch
from flowers_batch.encoding.shard_feed import ShardFeed
from flowers_batch.encoding.stages import Stages, add_seconds
from flowers_batch.encoding.worker import Quarantined
from flowers_batch.errors import RunError
from flowers_batch.sources.images import Image

BUFFERS = 4  # of a batch's pixels: one in the network, one ready for it, one being filled for each of two shards

# Pixels [N, 224, 224, 3] to codes [N, width]: an array, or a value that `np.asarray` waits for and converts.
Network = Callable[[Pixels], Any]


class Reader(Protocol):
    """What images are read from, such as a `sources.source.Source`."""

    def read(self, image: Image) -> bytes:
        """Return an image's bytes."""


@dataclass(frozen=True)
class FeedSettings:
    """How a network is fed.

    Attributes:
        batch_size: Images in one pass through the network; the size of the last batch of a shard is rounded up to a
            power of two, so that the network sees few shapes.
        pixel_type: What the network takes, float32 or uint8.
        code_dtype: The codes' type, float16 or float32.
        threads: Images that are decoded at once.
        max_pixels: Photos with more fail as `too_large`.
        reads: Images that are read at once, at least: reading from a store is mostly waiting.
        pixels_per_thread: Pixels that are decoded at once, times `threads`.
        large_file_bytes: Files with more bytes are held in memory one at a time.
    """

    batch_size: int
    pixel_type: DTypeLike
    code_dtype: str
    threads: int
    max_pixels: int
    reads: int = 1
    pixels_per_thread: int = PIXELS_PER_THREAD
    large_file_bytes: int = 64 << 20

    @property
    def all_threads(self) -> int:
        """Threads that read and decode."""
        return max(self.threads, self.reads)


class DecodingLimits:
    """The limited resources that the threads of a feed share.

    Attributes:
        pixels: Pixels that may be decoded at once.
        large_file: Held while a large file is in memory.
        cores: Held while an image is decoded, where more threads read than decode.
        buffers: Pixel buffers that are free.
    """

    def __init__(self, settings: FeedSettings):
        self.pixels = PixelBudget(settings.threads * settings.pixels_per_thread)
        self.large_file = threading.Lock()
        # Only where more threads read than decode: it would slow down the feeding of small photos.
        self.cores: AbstractContextManager[Any] = (
            threading.Semaphore(settings.threads) if settings.reads > settings.threads else nullcontext()
        )
        self.buffers: SimpleQueue[Pixels] = SimpleQueue()
        for _ in range(BUFFERS):
            # Not `zeros`, of which the system would clear each page only when it is first written to.
            self.buffers.put(np.full((settings.batch_size, SIDE, SIDE, 3), 0, settings.pixel_type))


class FeedThreads:
    """The threads of a feed.

    Attributes:
        decoding: Read and decode images.
        launching: Calls the network.
        fetching: Waits for codes.
    """

    def __init__(self, count: int):
        self.decoding = DaemonThreads(count, "decode")
        self.launching, self.fetching = DaemonThreads(1, "launch"), DaemonThreads(1, "fetch")

    def join(self) -> None:
        """End all threads."""
        for threads in (self.decoding, self.launching, self.fetching):
            threads.join()


class Feed:
    """Threads that read and decode, a network, and the buffers between them.

    Args:
        network: What computes the codes.
        reader: Where images are read from.
        settings: How.
    """

    def __init__(self, network: Network, reader: Reader, settings: FeedSettings):
        self._network, self.reader, self.settings = network, reader, settings
        self.images_seen = 0
        self.limits = DecodingLimits(settings)
        self._threads = FeedThreads(settings.all_threads)
        # Reentrant, since a run that was abandoned is stopped by whichever thread collects it.
        self.lock, self._last_fetch = threading.RLock(), 0.0
        self._running: set[ShardFeed] = set()
        _FEEDS.add(self)

    def run(self, images: Iterable[Image], quarantined: Quarantined, stages: Stages) -> Iterator[list[PendingImage]]:
        """Feed a shard's images to the network, and yield them in their order, a few at a time.

        Another thread may call it while an earlier call runs: its images follow those of the first.

        Args:
            images: The shard's images.
            quarantined: Images that fail without being read, since they would end or stall the process.
            stages: Gains the seconds spent in `read` and `decode` (by all threads together), `wait` (in which the
                network had no batch) and `network`.

        Raises:
            RunError: A code does not fit into the type that it is stored in, or an image met a bug.
        """
        with self.lock:
            if not self._running:
                self._last_fetch = time.perf_counter()
            shard = ShardFeed(self, images, quarantined, stages)
            self._running.add(shard)
        try:
            for _ in range(self.settings.all_threads):
                self._threads.decoding.submit(shard.work)
            yield from shard.results()
        finally:
            shard.stop()
            with self.lock:
                self._running.discard(shard)

    def end(self) -> None:
        """Abandon all runs, and end the threads."""
        for shard in list(self._running):
            shard.stop()
        self._threads.join()

    def compute(self, batch: PixelBatch, stages: Stages) -> None:
        """Have the network compute a batch's codes, after the batches that it was given before."""
        self._threads.launching.submit(self._launch, batch, stages)

    def _launch(self, batch: PixelBatch, stages: Stages) -> None:
        # Another thread fetches: where the device computes after the call returns, the next batch is copied meanwhile.
        started = time.perf_counter()
        size = min(1 << (batch.taken - 1).bit_length(), self.settings.batch_size)
        try:
            launched = self._network(batch.pixels[:size])
        except BaseException as error:
            self.finish(batch, error)
        else:
            self._threads.fetching.submit(self._fetch, batch, launched, started, stages)

    def _fetch(self, batch: PixelBatch, launched: Any, started: float, stages: Stages) -> None:
        try:
            codes: CodeArray | BaseException = _as_stored(np.asarray(launched)[: batch.taken], self.settings.code_dtype)
        except BaseException as error:
            codes = error
        now = time.perf_counter()
        add_seconds(stages, "wait", max(0.0, started - self._last_fetch))
        add_seconds(stages, "network", now - max(started, self._last_fetch))
        self._last_fetch = now
        self.finish(batch, codes)

    def finish(self, batch: PixelBatch, codes: CodeArray | BaseException) -> None:
        """Free a batch's buffer, and set its codes or the error in place of them."""
        self.limits.buffers.put(batch.pixels)
        if isinstance(codes, BaseException):
            batch.codes.set_exception(codes)
        else:
            batch.codes.set_result(codes)


_FEEDS: weakref.WeakSet[Feed] = weakref.WeakSet()


@atexit.register
def _end_feeds() -> None:
    """End all threads: one that runs a library's code when Python is finalized would abort the process."""
    for feed in list(_FEEDS):
        feed.end()


def _as_stored(codes: NDArray[np.float32], code_dtype: str) -> CodeArray:
    """Return codes in the type that they are stored in, so that labels from photos equal labels from stored codes."""
    with np.errstate(over="ignore"):
        stored = codes.astype(code_dtype)
    if not np.isfinite(stored).all():
        worst = np.abs(codes).max()
        raise RunError(
            f"A code contains {worst:g}, which {code_dtype} cannot represent: "
            + ("encode with `code_dtype` float32." if np.isfinite(worst) else "check the network's weights.")
        )
    return stored
