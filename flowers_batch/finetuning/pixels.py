"""Pixels of photos in the requested order, decoded ahead in worker processes, and once only."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.config import EXACT
from flowers_batch.decoding.groups import requests_of
from flowers_batch.decoding.outputs import SquarePixels
from flowers_batch.decoding.pool import GROUP, PoolSettings
from flowers_batch.decoding.tasks import TASKS_PER_WORKER, DecodedGroup
from flowers_batch.encoding.pixel_pools import open_pool
from flowers_batch.errors import InputError
from flowers_batch.sources.source import Source

_BATCHES_AHEAD = 2  # at least, that are decoded while the one before is trained on
_SHAPE = SquarePixels("uint8").shape
_BYTES = int(np.prod(_SHAPE))  # of a photo's pixels
_MAX_DISK_SHARE = 1 / 2  # of the free space on the disk of scratch files


class PixelReader:
    """Decodes photos ahead, in worker processes, and keeps their pixels in a scratch file.

    Args:
        source: Where photos are read from.
        photos: All photos that may be requested, with the columns `sources.images.IMAGES`.
        digests: SHA-256 of each one's file; other files are refused.
        batch_size: Photos in a batch.
        settings: How photos are decoded.
        mode: `exact` or `fast`: as for the codes.
    """

    def __init__(
        self,
        source: Source,
        photos: pa.Table,
        digests: Sequence[bytes],
        batch_size: int,
        settings: PoolSettings,
        mode: str = EXACT,
    ):
        self._photos, self._digests, self.batch_size = requests_of(photos), digests, batch_size
        self._kept, self._is_kept = _scratch(len(photos) * _BYTES), np.zeros(len(photos), bool)
        ahead = max(_BATCHES_AHEAD, -(-settings.workers * TASKS_PER_WORKER * min(GROUP, batch_size) // batch_size))
        # Each batch in flight has a part of the pool's slots, and what loads it: the part is free once that has ended.
        self._loading: list[Future[NDArray[np.uint8]] | None] = [None] * (ahead + 1)
        self._pool = open_pool(source, SquarePixels("uint8", mode), settings, (ahead + 1) * batch_size)
        self._threads = ThreadPoolExecutor(_BATCHES_AHEAD, "pixels")

    @property
    def has_scratch_file(self) -> bool:
        """Whether pixels are kept in a scratch file: not if the disk has too little room."""
        return self._kept is not None

    def batches(self, indices: NDArray[np.int_]) -> Iterator[NDArray[np.uint8]]:
        """Yield pixels: uint8 [N, 224, 224, 3], RGB, of the upright centre squares.

        Args:
            indices: int: which photos, in which order.

        Raises:
            InputError: A photo can no longer be read or decoded, or its file has changed.
        """
        ahead: deque[Future[NDArray[np.uint8]]] = deque()
        for number, start in enumerate(range(0, len(indices), self.batch_size)):
            if len(ahead) == len(self._loading):
                yield ahead.popleft().result()
            ahead.append(self._start(indices[start : start + self.batch_size], number % len(self._loading)))
        while ahead:
            yield ahead.popleft().result()

    def close(self) -> None:
        """End the workers, and delete the scratch file."""
        self._pool.close()
        self._threads.shutdown(cancel_futures=True)
        if self._kept is not None:
            self._kept.close()

    def _start(self, indices: NDArray[np.int_], part: int) -> Future[NDArray[np.uint8]]:
        """Have a batch decoded.

        Args:
            indices: Its photos.
            part: Of the pool's slots.
        """
        if before := self._loading[part]:  # unless it was taken, as where an epoch was broken off
            wait([before])
        is_kept = self._is_kept[indices]
        slot, groups = part * self.batch_size, []
        for places in _divide(np.flatnonzero(~is_kept)):
            rows = self._photos.take(pa.array(indices[places]))
            groups.append(_Group(places, slot, self._pool.submit(rows, slot)))
            slot += len(places)
        loading = self._loading[part] = self._threads.submit(self._load, indices, np.flatnonzero(is_kept), groups)
        return loading

    def _load(self, indices: NDArray[np.int_], kept: NDArray[np.int_], groups: Sequence[_Group]) -> NDArray[np.uint8]:
        """Return a batch's pixels.

        Args:
            indices: Its photos.
            kept: int: which of them are in the scratch file.
            groups: The others.
        """
        pixels = np.empty((len(indices), *_SHAPE), np.uint8)
        for place in kept.tolist():
            self._read(indices[place], pixels[place])
        wait([group.decoding for group in groups])  # also if one fails: until then its slots are not free
        for group in groups:
            self._check(indices[group.places], group.decoding.result().rows)
            pixels[group.places] = self._pool.slots[group.slot : group.slot + len(group.places)]
            for place in group.places.tolist():
                self._keep(indices[place], pixels[place])
        return pixels

    def _check(self, indices: NDArray[np.int_], rows: pa.RecordBatch) -> None:
        """Refuse photos that cannot be decoded, and files that are not those that were encoded."""
        expected, found = [self._digests[index] for index in indices], rows["sha256"].to_pylist()
        reasons, messages = rows["reason"].to_pylist(), rows["message"].to_pylist()
        for place, path in enumerate(self._photos["path"].take(pa.array(indices)).to_pylist()):
            is_same = found[place] == expected[place]
            if reasons[place] and is_same:
                raise InputError(
                    f"{path} was encoded, but can no longer be decoded ({messages[place]}): run the same command again "
                    "on a machine with more memory, or with a larger `image_timeout`."
                )
            if not is_same:
                why = messages[place] or "its file has changed"
                raise InputError(
                    f"{path} is no longer what was encoded ({why}): restore it, or encode the photos again and start "
                    "in another folder."
                )

    def _keep(self, index: np.int_, pixels: NDArray[np.uint8]) -> None:
        if self._kept is not None:
            with suppress(OSError):  # the disk is full: the photo is decoded again
                # Faster than a mapped file, whose pages are faulted in one by one.
                self._is_kept[index] = os.pwrite(self._kept.fileno(), pixels.data, int(index) * _BYTES) == _BYTES

    def _read(self, index: np.int_, pixels: NDArray[np.uint8]) -> None:
        assert self._kept is not None
        os.preadv(self._kept.fileno(), [pixels.data], int(index) * _BYTES)


@dataclass(frozen=True)
class _Group:
    """Photos of a batch that a worker decodes.

    Attributes:
        places: int: theirs in the batch.
        slot: Of the first one; the others follow.
        decoding: Their results.
    """

    places: NDArray[np.int_]
    slot: int
    decoding: Future[DecodedGroup]


def _divide(places: NDArray[np.int_]) -> list[NDArray[np.int_]]:
    """Divide places into equal parts of at most `GROUP`."""
    return np.array_split(places, -(-len(places) // GROUP)) if len(places) else []


def _scratch(size: int) -> IO[bytes] | None:
    """Return a file that is deleted when the process ends; None if the disk has too little room."""
    if size > _MAX_DISK_SHARE * shutil.disk_usage(tempfile.gettempdir()).free:
        return None
    return tempfile.TemporaryFile(buffering=0)
