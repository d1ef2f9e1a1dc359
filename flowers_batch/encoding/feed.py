"""Feeds a network: images are read and decoded ahead into whole batches, and results are put back in order.

Threads take the images of a shard one after the other. Each decodes its image straight into the next free slot of
the batch that is being filled, so a batch holds whatever was ready first. A full batch goes to the network; while that
is busy with it, the next ones are filled. A few pixel buffers are used again and again; threads block when no buffer is
free, which is the back-pressure from a slow network. Threads that find a shard at its end begin with the next one
while the last batches of the first are still computed.
"""

from __future__ import annotations

import atexit
import hashlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import nullcontext
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.process_limits import PIXELS_PER_THREAD, PixelBudget
from flowers_batch.decoding.resizing import SIDE, Pixels
from flowers_batch.encoding.daemon_threads import DaemonThreads
from flowers_batch.encoding.pending_image import Chunk, Codes, PendingImage, PixelBatch
from flowers_batch.errors import FlowersError, RunError
from flowers_batch.sources.images import Image

_BUFFERS = 4  # of a batch's pixels: one in the network, one ready for it, one being filled for each of two shards
_BATCHES_AHEAD = 8  # images that are taken before an earlier one's row is: bounds the codes that wait
_FILES_KNOWN = 1024  # whose equals are not decoded again: bounds the codes that are kept for that
_LARGE_FILE = 64 << 20  # bytes; files that have more are held in memory one at a time
# Why an image failed; exceptions that are faults of the program may have a `reason` too (UnicodeError).
_REASONS = {"missing", "unreadable", "not_an_image", "truncated", "too_large", "unsupported"}
_REASONS |= {"crashed_decoder", "timeout"}

Quarantined = Mapping[str, tuple[str, str]]  # reason and message, by path, of images that are not to be touched
# Pixels [N, 224, 224, 3] to codes [N, width]: an array, or what `np.asarray` waits for and makes one of.
Network = Callable[[Pixels], Any]


class Reader(Protocol):
    """What images are read from: `sources.Source`."""

    def read(self, image: Image) -> bytes:
        """Reads an image's bytes."""


class Feed:
    """Threads that read and decode, a network, and the buffers between them.

    Args:
        network: What computes the codes.
        reader: Where images are read from.
        batch_size: Images in one pass through the network; the last batch of a shard is cut to a power of two that
            holds it, so that the network sees few shapes.
        pixel_type: What the network takes, float32 or uint8.
        code_dtype: The codes' type, float16 or float32.
        threads: Images that are decoded at once.
        max_pixels: Photos with more fail as `too_large`.
        reads: Images that are read at once, at least: those that come from afar are waited for more than decoded.
    """

    def __init__(
        self,
        network: Network,
        reader: Reader,
        batch_size: int,
        pixel_type: DTypeLike,
        code_dtype: str,
        threads: int,
        max_pixels: int,
        reads: int = 1,
    ):
        self.batch_size, self.images_seen = batch_size, 0
        self.decodes, self.threads = threads, max(threads, reads)
        self.reader, self.max_pixels = reader, max_pixels
        self.budget, self.large_file = PixelBudget(threads * PIXELS_PER_THREAD), threading.Lock()
        # Taken only where more are read than decoded: it would slow down the feeding of small photos.
        self.cores = threading.Semaphore(threads) if reads > threads else nullcontext()
        self.buffers: SimpleQueue[Pixels] = SimpleQueue()
        for _ in range(_BUFFERS):
            # Not `zeros`, of which the system would clear each page only when it is first written to.
            self.buffers.put(np.full((batch_size, SIDE, SIDE, 3), 0, pixel_type))
        self._network, self._code_dtype = network, code_dtype
        self._decoding = DaemonThreads(self.threads, "decode")
        self._launching, self._fetching = DaemonThreads(1, "launch"), DaemonThreads(1, "fetch")
        # Reentrant, since a run that was given up is stopped by whichever thread collects it.
        self.lock, self._fetched = threading.RLock(), 0.0
        self._shards: set[_Shard] = set()  # that are run
        _FEEDS.add(self)

    def run(
        self, images: Iterable[Image], quarantined: Quarantined, stages: dict[str, float]
    ) -> Iterator[list[PendingImage]]:
        """Feeds a shard's images to the network, and yields them in their order, a few at a time.

        Another thread may call it while an earlier call goes on: its images follow those of the first.

        Args:
            images: The shard's images.
            condemned: Those that fail without being touched, since they would end or stall the process.
            stages: Gains the seconds spent in `read` and `decode` (by all threads together), `wait` (in which the
                network had no batch) and `network`.

        Raises:
            RunError: A code does not fit into the type that it is stored in, or an image stopped the program.
        """
        with self.lock:
            if not self._shards:
                self._fetched = time.perf_counter()
            shard = _Shard(self, images, quarantined, stages)
            self._shards.add(shard)
        try:
            for _ in range(self.threads):
                self._decoding.submit(shard.work)
            yield from shard.results()
        finally:
            shard.stop()
            with self.lock:
                self._shards.discard(shard)

    def end(self) -> None:
        """Gives up what is run, and ends the threads."""
        for shard in list(self._shards):
            shard.stop()
        for threads in (self._decoding, self._launching, self._fetching):
            threads.join()

    def compute(self, batch: PixelBatch, stages: dict[str, float]) -> None:
        """Has the network compute a batch's codes, after those that it was given before."""
        self._launching.submit(self._launch, batch, stages)

    def _launch(self, batch: PixelBatch, stages: dict[str, float]) -> None:
        # Fetching is another thread's: where computing goes on behind the call, the next batch is copied meanwhile.
        begun = time.perf_counter()
        size = min(1 << (batch.taken - 1).bit_length(), self.batch_size)
        try:
            launched = self._network(batch.pixels[:size])
        except BaseException as error:
            self.give_back(batch, error)
        else:
            self._fetching.submit(self._fetch, batch, launched, begun, stages)

    def _fetch(self, batch: PixelBatch, launched: Any, begun: float, stages: dict[str, float]) -> None:
        try:
            codes: Codes | BaseException = _stored(np.asarray(launched)[: batch.taken], self._code_dtype)
        except BaseException as error:
            codes = error
        now = time.perf_counter()
        add(stages, "wait", max(0.0, begun - self._fetched))
        add(stages, "network", now - max(begun, self._fetched))
        self._fetched = now
        self.give_back(batch, codes)

    def give_back(self, batch: PixelBatch, codes: Codes | BaseException) -> None:
        """Frees a batch's pixels, and says what they became."""
        self.buffers.put(batch.pixels)
        if isinstance(codes, BaseException):
            batch.codes.set_exception(codes)
        else:
            batch.codes.set_result(codes)


_FEEDS: weakref.WeakSet[Feed] = weakref.WeakSet()


@atexit.register
def _end_feeds() -> None:
    """Ends all threads in order: one that is in a library's code when Python is gone would abort the process."""
    for feed in list(_FEEDS):
        feed.end()


class _Shard:
    """The images of one shard while they are fed."""

    def __init__(self, feed: Feed, images: Iterable[Image], quarantined: Quarantined, stages: dict[str, float]):
        self._feed, self._images, self._quarantined, self._stages = feed, iter(images), quarantined, stages
        self._lock = feed.lock  # guards all that follows
        self._begun, self._room = threading.Condition(self._lock), threading.Condition(self._lock)
        self._chunks: deque[Chunk] = deque()  # of which no row was taken yet
        self._chunk: Chunk | None = None  # the last one
        self._ahead = self._busy = 0  # images whose rows were not taken yet; those that threads are at
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self._known: dict[bytes, PendingImage] = {}
        self._batch: PixelBatch | None = None  # that is being filled
        self._awaited: PixelBatch | None = None  # whose codes the next row waits for
        self._slot_lock = threading.Lock()  # held while that one is exchanged, which may take a while

    def work(self) -> None:
        """What each thread does until no image is left."""
        pending = None
        try:
            while (pending := self._next()) is not None:
                self._finish(pending, *self._load(pending))
                pending = None
        except BaseException as error:
            self._error = self._error or error
            self.stop()
            if pending:
                self._finish(pending)

    def results(self) -> Iterator[list[PendingImage]]:
        """All images in their order, a batch's number at a time, as soon as their codes are there."""
        while (chunk := self._first()) is not None:
            for pending in chunk.images:
                self._resolve(pending)
            with self._lock:
                self._ahead -= len(chunk.images)
                self._room.notify_all()
            yield chunk.images
        if self._error:
            raise self._error

    def stop(self) -> None:
        """Takes no image more; those that threads are at are ended, and computed no more."""
        with self._lock:
            self._stopped = True
            self._end()
            batch = self._unfillable()
        self._compute(batch)

    def _first(self) -> Chunk | None:
        with self._lock:
            self._begun.wait_for(lambda: self._chunks or self._ended)
            return self._chunks.popleft() if self._chunks else None

    def _next(self) -> PendingImage | None:
        """The next image that no thread has taken yet."""
        with self._lock:
            self._room.wait_for(lambda: self._ended or not self._is_far_ahead)
            image = None if self._ended else next(self._images, None)
            if image is not None:
                if self._chunk is None or len(self._chunk.images) == self._feed.batch_size:
                    self._chunk = Chunk()
                    self._chunks.append(self._chunk)
                    self._begun.notify()
                pending = PendingImage(image, self._chunk)
                self._chunk.images.append(pending)
                self._chunk.busy += 1
                self._ahead += 1
                self._busy += 1
                return pending
            self._end()
            batch = self._unfillable()
        self._compute(batch)
        return None

    def _end(self) -> None:
        self._ended = True
        if self._chunk and not self._chunk.busy:
            self._chunk.decoded.set()
        self._begun.notify_all()
        self._room.notify_all()

    @property
    def _is_far_ahead(self) -> bool:
        return self._ahead >= self._feed.batch_size * _BATCHES_AHEAD

    def _load(self, pending: PendingImage) -> tuple[float, float]:
        """Reads and decodes an image; gives the seconds that both took."""
        pending.failure = self._quarantined.get(pending.image.path)
        if pending.failure:
            return 0.0, 0.0
        with self._feed.large_file if pending.image.bytes > _LARGE_FILE else nullcontext():
            begun = time.perf_counter()
            read = decoding = None
            try:
                data = self._feed.reader.read(pending.image)
                read = time.perf_counter()
                pending.size, pending.sha256 = len(data), hashlib.sha256(data).digest()
                if not self._is_known(pending):
                    with self._feed.cores:
                        decoding = time.perf_counter()
                        slot = partial(self._take_slot, pending)
                        picture = decode(data, self._feed.max_pixels, self._feed.budget, slot)
                    pending.width, pending.height, pending.phash = picture.width, picture.height, picture.phash
            except FlowersError:
                raise
            except Exception as error:
                reason = getattr(error, "reason", None)
                if reason not in _REASONS:
                    raise RunError(
                        f"{pending.image.path} stopped the run by a fault of the program: {error!r}."
                    ) from error
                pending.failure = (reason, str(error))
            ended = time.perf_counter()
            return (read or ended) - begun, ended - (decoding or read or ended)

    def _is_known(self, pending: PendingImage) -> bool:
        """Whether an image before had the same bytes: then all is known by that one."""
        assert pending.sha256
        with self._lock:
            first = self._known.get(pending.sha256)
            if first:
                pending.slot = first
                return True
            if len(self._known) == _FILES_KNOWN:
                self._known.clear()
            self._known[pending.sha256] = pending
            return False

    def _take_slot(self, pending: PendingImage) -> Pixels:
        """The next free slot of the batch that is being filled."""
        begun = time.perf_counter()
        with self._slot_lock:
            batch = self._batch = self._batch or PixelBatch(self._feed.buffers.get())
            pending.batch, pending.slot = batch, batch.taken
            batch.taken += 1
            if batch.taken == self._feed.batch_size:
                self._batch = None
        pending.waited = time.perf_counter() - begun
        return batch.pixels[pending.slot]

    def _finish(self, pending: PendingImage, read: float = 0.0, decoded: float = 0.0) -> None:
        with self._lock:
            add(self._stages, "read", read / self._feed.threads)
            add(self._stages, "decode", (decoded - pending.waited) / self._feed.decodes)
            self._feed.images_seen += 1
            self._busy -= 1
            assert pending.chunk
            pending.chunk.busy -= 1
            if not pending.chunk.busy and (self._ended or len(pending.chunk.images) == self._feed.batch_size):
                pending.chunk.decoded.set()
            full = None
            if pending.batch:
                pending.batch.filled += 1
                full = pending.batch if pending.batch.filled == self._feed.batch_size else None
            batch = self._unfillable()
        self._compute(full)
        self._compute(batch)

    def _unfillable(self) -> PixelBatch | None:
        """Takes away the batch that is being filled, if nothing will fill it: at the end, or where the rows of too many
        images that need no slot in it wait for its codes."""
        if self._busy or not (self._ended or (self._batch is self._awaited and self._is_far_ahead)):
            return None
        batch, self._batch = self._batch, None
        return batch

    def _compute(self, batch: PixelBatch | None) -> None:
        if batch and self._stopped:
            self._feed.give_back(batch, self._error or CancelledError())
        elif batch:
            self._feed.compute(batch, self._stages)

    def _resolve(self, pending: PendingImage) -> None:
        """Waits for all that is to be known of an image, and lets go of what led to it."""
        if self._error:
            raise self._error
        if pending.chunk is None:
            return
        pending.chunk.decoded.wait()
        if isinstance(pending.slot, PendingImage):
            first = pending.slot
            self._resolve(first)
            pending.width, pending.height, pending.phash = first.width, first.height, first.phash
            pending.failure, pending.code = first.failure, first.code
        elif pending.batch and not pending.failure:
            if not pending.batch.codes.done():
                with self._lock:
                    self._awaited = pending.batch
                    batch = self._unfillable()
                self._compute(batch)
            pending.code = pending.batch.codes.result()[pending.slot]
        pending.chunk, pending.batch, pending.slot = None, None, 0


def add(stages: dict[str, float], name: str, seconds: float) -> None:
    """Adds to the seconds of a stage."""
    stages[name] = stages.get(name, 0.0) + seconds


def _stored(codes: NDArray[np.float32], code_dtype: str) -> Codes:
    """Codes in the type that they are stored in, so that labels from photos equal labels from a codes folder."""
    with np.errstate(over="ignore"):
        stored = codes.astype(code_dtype)
    if not np.isfinite(stored).all():
        worst = np.abs(codes).max()
        raise RunError(
            f"A code holds {worst:g}, which {code_dtype} cannot: "
            + ("encode with `code_dtype` float32." if np.isfinite(worst) else "check the network's weights.")
        )
    return stored
