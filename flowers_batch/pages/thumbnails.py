"""Pictures of photos, made in processes of their own: neither a web server nor a report's process reads a photo."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING

from flowers_batch.config import ArchiveConfig
from flowers_batch.decoding.groups import requests_of
from flowers_batch.decoding.outputs import WebpThumbnail
from flowers_batch.decoding.tasks import TASKS_PER_WORKER, DecodedGroup, closed_error
from flowers_batch.errors import RunError
from flowers_batch.sources.images import Image, batches_of
from flowers_batch.sources.source import Source
from flowers_batch.storage.opening import open_folder

if TYPE_CHECKING:
    from flowers_batch.decoding.pool import DecodePool


@dataclass(frozen=True)
class PictureSize:
    """A size of pictures, and how they are made.

    Attributes:
        edge: The longer edge, in pixels.
        quality: Of the WebP file, 0 to 100.
        workers: Processes.
        group: Photos that a process is given at once, at most.
    """

    edge: int
    quality: int
    workers: int
    group: int

    @property
    def in_flight(self) -> int:
        """How many groups are made at once, or wait for a process."""
        return TASKS_PER_WORKER * self.workers


# A page shows some hundred thumbnails, each a few milliseconds of work; and one large picture, or the next one.
SMALL = PictureSize(160, 70, min(os.cpu_count() or 1, 16), 8)
LARGE = PictureSize(1600, 85, min(os.cpu_count() or 1, 2), 1)

_Submitted = tuple[int, Future[DecodedGroup], Sequence[Image]]


class NoThumbnail(Exception):
    """A photo has no thumbnail, for a reason that a sentence says."""


class ThumbnailPool:
    """Makes thumbnails in processes of its own, which start when the first thumbnail is wanted.

    Many threads may have thumbnails made.

    Args:
        source: Where photos are read from.
        size: Of the thumbnails.
    """

    def __init__(self, source: Source, size: PictureSize = SMALL):
        self._source, self._size = source, size
        self._lock = Lock()
        self._pool: DecodePool | None = None
        self._is_closed = False
        self._free: SimpleQueue[int] = SimpleQueue()  # the first slots of groups
        for group in range(size.in_flight):
            self._free.put(group * size.group)

    def make(self, image: Image) -> bytes:
        """Return an upright thumbnail of a photo as a WebP file, its longer edge at most `size.edge` pixels.

        Raises:
            NoThumbnail: The photo cannot be read or decoded, or is a link to a file outside the photos' folder.
            InputError: It is not one of the source's photos.
            RunError: No photo can be decoded.
        """
        (made,) = self._receive(self._submit([image]))
        if isinstance(made, NoThumbnail):
            raise made
        return made

    def make_all(self, images: Sequence[Image]) -> Iterator[bytes | NoThumbnail]:
        """Yield what `make` returns, or raises as `NoThumbnail`, for each of many photos, in their order.

        Several are made at once, and hardly more than are taken.

        Raises:
            InputError: One is not a photo of the source.
            RunError: No photo can be decoded.
        """
        submitted: deque[_Submitted] = deque()
        for start in range(0, len(images), self._size.group):
            if len(submitted) == self._size.in_flight:
                yield from self._receive(submitted.popleft())
            submitted.append(self._submit(images[start : start + self._size.group]))
        while submitted:
            yield from self._receive(submitted.popleft())

    def _submit(self, images: Sequence[Image]) -> _Submitted:
        """Have a group of photos decoded, once there are free slots for it."""
        pool, first_slot = self._open(), self._free.get()
        (rows,) = batches_of(images)
        return first_slot, pool.submit(requests_of(rows), first_slot), images

    def _receive(self, submitted: _Submitted) -> list[bytes | NoThumbnail]:
        """Return the thumbnails of a group, and free its slots."""
        first_slot, decoded, images = submitted
        try:
            messages = decoded.result().rows["message"].to_pylist()
            slots = self._open().slots[first_slot:]
            return [
                WebpThumbnail.read(slot) if message is None else NoThumbnail(message)
                for message, slot in zip(messages, slots, strict=False)
            ]
        except RunError as error:
            if not self._is_source_missing():
                raise
            return [NoThumbnail(str(error)) for _ in images]
        finally:
            self._free.put(first_slot)

    def _is_source_missing(self) -> bool:
        root = self._source.root
        return (open_folder(root) if root else self._source.folder).is_missing()

    def _open(self) -> DecodePool:
        """Return the processes, started if there are none."""
        from flowers_batch.decoding.pool import DecodePool, PoolSettings

        with self._lock:
            if self._is_closed:
                raise closed_error()
            if self._pool is None:
                size = self._size
                settings = PoolSettings(size.workers, ArchiveConfig.max_pixels, ArchiveConfig.image_timeout)
                output = WebpThumbnail(size.edge, size.quality)
                self._pool = DecodePool(self._source, output, settings, size.in_flight * size.group)
            return self._pool

    def close(self) -> None:
        """End the processes; no thumbnail is made any more."""
        with self._lock:
            self._is_closed = True
            if self._pool:
                self._pool.close()
