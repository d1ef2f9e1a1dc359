"""Reads photos of a store before they are decoded: each takes tens of milliseconds of waiting."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

from flowers_batch.sources.images import Image
from flowers_batch.sources.source import Source

READS = 64  # at once; where each takes 30 ms, 36 of them are on their way if a core decodes 1,200 small photos/s
AHEAD_BYTES = 64 << 20  # that have been or are being read, and are not decoded
_UNLISTED_BYTES = 2 << 20  # that count for a photo of unknown size until it is read


@dataclass(eq=False)
class AheadRead:
    """A photo that is to be read ahead.

    Attributes:
        image: The photo.
        size: In bytes, as far as that is known.
        content: Its bytes; None until its turn comes.
    """

    image: Image
    size: int
    content: Future[bytes] | None = None


class ReadAhead:
    """Reads photos in the order in which they are needed: at most `READS` at once, and `AHEAD_BYTES` ahead.

    Args:
        source: What reads them, from many threads.
    """

    def __init__(self, source: Source):
        self._source = source
        self._threads = ThreadPoolExecutor(READS, "read-ahead")  # which start when there is a photo for them
        self._lock = Lock()
        self._waiting: deque[AheadRead] = deque()
        self._bytes = 0

    def add(self, image: Image) -> AheadRead:
        """Have a photo read after those that were added before."""
        read = AheadRead(image, image.bytes if image.bytes > 0 else _UNLISTED_BYTES)
        with self._lock:
            self._waiting.append(read)
            self._begin()
        return read

    def take(self, read: AheadRead) -> bytes:
        """Return a photo's bytes, which are not kept, or raise what reading it raises."""
        if self._withdraw(read):
            return self._source.read(read.image)
        assert read.content
        try:
            return read.content.result()
        finally:
            self.drop(read)

    def drop(self, read: AheadRead) -> None:
        """Forget a photo; if it is being read, it counts until that ends."""
        if not self._withdraw(read):
            assert read.content
            read.content.cancel()
            read.content.add_done_callback(lambda _: self._release(read))

    def _withdraw(self, read: AheadRead) -> bool:
        """Return whether reading a photo has not begun; it will not begin then."""
        with self._lock:
            if read.content is None:
                self._waiting.remove(read)
                return True
        return False

    def _release(self, read: AheadRead) -> None:
        with self._lock:
            self._bytes -= read.size
            self._begin()

    def _begin(self) -> None:
        while self._waiting and self._bytes + self._waiting[0].size <= AHEAD_BYTES:
            read = self._waiting.popleft()
            self._bytes += read.size
            read.content = self._threads.submit(self._read, read)

    def _read(self, read: AheadRead) -> bytes:
        content = self._source.read(read.image)
        with self._lock:
            self._bytes += len(content) - read.size
            read.size = len(content)
        return content
