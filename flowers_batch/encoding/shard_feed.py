"""One shard's images on their way through a feed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.decoding.tasks import DecodedGroup
from flowers_batch.encoding.stages import Stages, add_seconds

if TYPE_CHECKING:
    from flowers_batch.encoding.feed import Feed

BATCHES_AHEAD = 8  # whose codes wait for the rows of a batch before them: bounds the memory of codes
CodeArray = NDArray[Any]  # float16, float32, or uint8 for pixels


@dataclass(frozen=True)
class FedBatch:
    """The results of consecutive images.

    Attributes:
        rows: What is known of each, with the columns `decoding.groups.RESULTS`.
        codes: [images that did not fail, width]; None if all failed.
    """

    rows: pa.RecordBatch
    codes: CodeArray | None


class PixelBatch:
    """Consecutive images whose pixels share a buffer, and the codes that they become.

    Args:
        requests: The images, with the columns `decoding.groups.REQUESTS`.
        buffer: The buffer's number.
        shard: What they belong to.

    Attributes:
        groups: The results of its groups of images.
        codes: Of the images that did not fail; None if all failed.
    """

    def __init__(self, requests: pa.RecordBatch, buffer: int, shard: ShardFeed):
        self.requests, self.buffer, self.shard = requests, buffer, shard
        self.groups: list[Future[DecodedGroup]] = []
        self.codes: Future[CodeArray | None] = Future()

    def decoded(self) -> NDArray[np.bool_]:
        """Return which images were decoded, once all were or failed: bool [images]; raise what ended a group's work."""
        oks = [group.result().rows["reason"].is_null().to_numpy(zero_copy_only=False) for group in self.groups]
        return np.concatenate(oks)

    def results(self) -> FedBatch:
        """Wait for the results."""
        codes = self.codes.result()
        return FedBatch(pa.concat_batches([group.result().rows for group in self.groups]), codes)


class ShardFeed:
    """The images of one shard while they are fed to the network.

    Args:
        feed: What feeds them.
        requests, stages: As `Feed.run` takes them.

    Attributes:
        stages: As given.
        is_stopped: Whether no more images are decoded, and no more codes computed.
    """

    def __init__(self, feed: Feed, requests: pa.RecordBatch, stages: Stages):
        self._feed, self._requests, self.stages = feed, requests, stages
        self._batches: SimpleQueue[PixelBatch | BaseException | None] = SimpleQueue()
        self._ahead = threading.Semaphore(BATCHES_AHEAD + len(feed.pool.slots) // feed.batch_size)
        self.is_stopped = False

    def submit_all(self) -> None:
        """Give all images to the decode workers, as buffers become free: what the feed's thread does."""
        try:
            for start in range(0, len(self._requests), self._feed.batch_size):
                self._ahead.acquire()
                if self.is_stopped:
                    break
                requests = self._requests.slice(start, self._feed.batch_size)
                batch = PixelBatch(requests, self._feed.free.get(), self)
                self._submit(batch)
                self._batches.put(batch)
            self._batches.put(None)
        except BaseException as error:
            self._batches.put(error)

    def _submit(self, batch: PixelBatch) -> None:
        group, images = self._feed.group_size, len(batch.requests)
        first_slot = batch.buffer * self._feed.batch_size
        for start in range(0, images, group):
            batch.groups.append(self._feed.pool.submit(batch.requests.slice(start, group), first_slot + start))
        left = _Countdown(len(batch.groups), lambda: self._feed.compute(batch))
        for future in batch.groups:
            future.add_done_callback(left.count)

    def results(self) -> Iterator[FedBatch]:
        """Yield the results of all images in their order, as soon as they are there.

        Raises:
            Exception: Whatever stopped the shard.
        """
        workers = self._feed.pool.settings.workers
        while (batch := self._batches.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            results = batch.results()
            for group in batch.groups:
                decoded = group.result()
                add_seconds(self.stages, "read", decoded.read_seconds / workers)
                add_seconds(self.stages, "decode", decoded.decode_seconds / workers)
            self._ahead.release()
            yield results

    def stop(self) -> None:
        """Submit no more images."""
        self.is_stopped = True
        self._ahead.release()


class _Countdown:
    """Calls a function once a number of futures are done."""

    def __init__(self, count: int, then: Callable[[], None]):
        self._left, self._lock = count, threading.Lock()
        self._then: Callable[[], None] | None = then

    def count(self, _: Future[DecodedGroup]) -> None:
        with self._lock:
            self._left -= 1
            # The futures keep this object: without the function, they and their batch of codes are no cycle.
            then, self._then = (None, self._then) if self._left else (self._then, None)
        if then:
            then()
