"""One shard's images on their way through a feed."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.resizing import Pixels
from flowers_batch.encoding.pending_image import Chunk, PendingImage, PixelBatch
from flowers_batch.encoding.stages import Stages, add_seconds
from flowers_batch.encoding.worker import Quarantined
from flowers_batch.errors import FlowersError, RunError
from flowers_batch.sources.images import Image

if TYPE_CHECKING:
    from flowers_batch.encoding.feed import Feed

BATCHES_AHEAD = 8  # of images in progress before the oldest row is taken: bounds the codes in memory
KNOWN_FILES = 1024  # files whose copies are not decoded again: bounds the codes that are kept for that
# Why an image failed; exceptions that are faults of the program may have a `reason` too (UnicodeError).
_REASONS = {"missing", "unreadable", "not_an_image", "truncated", "too_large", "unsupported"}
_REASONS |= {"crashed_decoder", "timeout"}


class _State:
    """How far a shard is.

    Attributes:
        chunks: Chunks of which no row was taken yet.
        chunk: The last chunk.
        ahead: Images whose rows were not taken yet.
        busy: Images that threads are working on.
        is_ended: Whether no more images will be taken.
        is_stopped: Whether no more codes will be computed.
        error: What stopped the shard.
    """

    def __init__(self) -> None:
        self.chunks: deque[Chunk] = deque()
        self.chunk: Chunk | None = None
        self.ahead = self.busy = 0
        self.is_ended = self.is_stopped = False
        self.error: BaseException | None = None


class _Filling:
    """Which batch is being filled.

    Attributes:
        batch: The batch that is being filled.
        awaited: The batch whose codes the next row waits for.
        lock: Held while `batch` is exchanged, which may take a while.
    """

    def __init__(self) -> None:
        self.batch: PixelBatch | None = None
        self.awaited: PixelBatch | None = None
        self.lock = threading.Lock()


class ShardFeed:
    """The images of one shard while they are fed to the network.

    Args:
        feed: What feeds them.
        images, quarantined, stages: As `Feed.run` takes them.
    """

    def __init__(self, feed: Feed, images: Iterable[Image], quarantined: Quarantined, stages: Stages):
        self._feed, self._images, self._quarantined, self._stages = feed, iter(images), quarantined, stages
        self._lock = feed.lock  # guards all that follows
        self._chunk_added, self._rows_taken = threading.Condition(self._lock), threading.Condition(self._lock)
        self._state, self._filling = _State(), _Filling()
        self._known: dict[bytes, PendingImage] = {}

    def work(self) -> None:
        """Read and decode images until none is left: what each thread does."""
        pending = None
        try:
            while (pending := self._next()) is not None:
                self._finish(pending, *self._load(pending))
                pending = None
        except BaseException as error:
            self._state.error = self._state.error or error
            self.stop()
            if pending:
                self._finish(pending)

    def results(self) -> Iterator[list[PendingImage]]:
        """Yield all images in their order, as many at a time as a batch has, as soon as their codes are there.

        Raises:
            Exception: Whatever stopped the shard.
        """
        while (chunk := self._first()) is not None:
            for pending in chunk.images:
                self._resolve(pending)
            with self._lock:
                self._state.ahead -= len(chunk.images)
                self._rows_taken.notify_all()
            yield chunk.images
        if self._state.error:
            raise self._state.error

    def stop(self) -> None:
        """Take no more images; those in progress are finished, but no more codes are computed."""
        with self._lock:
            self._state.is_stopped = True
            self._end()
            batch = self._unfillable()
        self._compute(batch)

    def _first(self) -> Chunk | None:
        with self._lock:
            self._chunk_added.wait_for(lambda: self._state.chunks or self._state.is_ended)
            return self._state.chunks.popleft() if self._state.chunks else None

    def _next(self) -> PendingImage | None:
        """Return the next image that no thread has taken yet."""
        with self._lock:
            self._rows_taken.wait_for(lambda: self._state.is_ended or not self._is_far_ahead)
            image = None if self._state.is_ended else next(self._images, None)
            if image is not None:
                if self._state.chunk is None or len(self._state.chunk.images) == self._feed.settings.batch_size:
                    self._state.chunk = Chunk()
                    self._state.chunks.append(self._state.chunk)
                    self._chunk_added.notify()
                pending = PendingImage(image, self._state.chunk)
                self._state.chunk.images.append(pending)
                self._state.chunk.busy += 1
                self._state.ahead += 1
                self._state.busy += 1
                return pending
            self._end()
            batch = self._unfillable()
        self._compute(batch)
        return None

    def _end(self) -> None:
        self._state.is_ended = True
        if self._state.chunk and not self._state.chunk.busy:
            self._state.chunk.decoded.set()
        self._chunk_added.notify_all()
        self._rows_taken.notify_all()

    @property
    def _is_far_ahead(self) -> bool:
        return self._state.ahead >= self._feed.settings.batch_size * BATCHES_AHEAD

    def _load(self, pending: PendingImage) -> tuple[float, float]:
        """Read and decode an image; return the seconds that each took."""
        pending.failure = self._quarantined.get(pending.image.path)
        if pending.failure:
            return 0.0, 0.0
        settings = self._feed.settings
        is_large = pending.image.bytes > settings.large_file_bytes
        with self._feed.limits.large_file if is_large else nullcontext():
            started = time.perf_counter()
            read = decoding = None
            try:
                data = self._feed.reader.read(pending.image)
                read = time.perf_counter()
                pending.size, pending.sha256 = len(data), hashlib.sha256(data).digest()
                if not self._is_known(pending):
                    with self._feed.limits.cores:
                        decoding = time.perf_counter()
                        slot = partial(self._take_slot, pending)
                        picture = decode(data, settings.max_pixels, self._feed.limits.pixels, slot)
                    pending.width, pending.height, pending.phash = picture.width, picture.height, picture.phash
            except FlowersError:
                raise
            except Exception as error:
                reason = getattr(error, "reason", None)
                if reason not in _REASONS:
                    raise RunError(f"{pending.image.path} stopped the run because of a bug: {error!r}.") from error
                pending.failure = (reason, str(error))
            ended = time.perf_counter()
            return (read or ended) - started, ended - (decoding or read or ended)

    def _is_known(self, pending: PendingImage) -> bool:
        """Return whether an earlier image had the same bytes, whose results then serve for this one."""
        assert pending.sha256
        with self._lock:
            first = self._known.get(pending.sha256)
            if first:
                pending.slot = first
                return True
            if len(self._known) == KNOWN_FILES:
                self._known.clear()
            self._known[pending.sha256] = pending
            return False

    def _take_slot(self, pending: PendingImage) -> Pixels:
        """Return the next free slot of the batch that is being filled."""
        started = time.perf_counter()
        with self._filling.lock:
            batch = self._filling.batch = self._filling.batch or PixelBatch(self._feed.limits.buffers.get())
            pending.batch, pending.slot = batch, batch.taken
            batch.taken += 1
            if batch.taken == self._feed.settings.batch_size:
                self._filling.batch = None
        pending.waited = time.perf_counter() - started
        return batch.pixels[pending.slot]

    def _finish(self, pending: PendingImage, read: float = 0.0, decoded: float = 0.0) -> None:
        with self._lock:
            add_seconds(self._stages, "read", read / self._feed.settings.all_threads)
            add_seconds(self._stages, "decode", (decoded - pending.waited) / self._feed.settings.threads)
            self._feed.images_seen += 1
            self._state.busy -= 1
            assert pending.chunk
            pending.chunk.busy -= 1
            if not pending.chunk.busy and (
                self._state.is_ended or len(pending.chunk.images) == self._feed.settings.batch_size
            ):
                pending.chunk.decoded.set()
            full = None
            if pending.batch:
                pending.batch.filled += 1
                full = pending.batch if pending.batch.filled == self._feed.settings.batch_size else None
            batch = self._unfillable()
        self._compute(full)
        self._compute(batch)

    def _unfillable(self) -> PixelBatch | None:
        """Detach and return the batch that is being filled, if nothing will fill it.

        That is so at the end, and where the rows of too many images that need no slot in it wait for its codes.
        """
        if self._state.busy or not (
            self._state.is_ended or (self._filling.batch is self._filling.awaited and self._is_far_ahead)
        ):
            return None
        batch, self._filling.batch = self._filling.batch, None
        return batch

    def _compute(self, batch: PixelBatch | None) -> None:
        if batch and self._state.is_stopped:
            self._feed.finish(batch, self._state.error or CancelledError())
        elif batch:
            self._feed.compute(batch, self._stages)

    def _resolve(self, pending: PendingImage) -> None:
        """Wait for an image's results, and release what led to them."""
        if self._state.error:
            raise self._state.error
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
                    self._filling.awaited = pending.batch
                    batch = self._unfillable()
                self._compute(batch)
            pending.code = pending.batch.codes.result()[pending.slot]
        pending.chunk, pending.batch, pending.slot = None, None, 0
