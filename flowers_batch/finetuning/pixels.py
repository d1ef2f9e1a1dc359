"""Pixels of photos in the requested order, decoded ahead in threads, and once only."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO

import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.process_limits import PIXELS_PER_THREAD, PixelBudget, prepare_process
from flowers_batch.decoding.resizing import SIDE
from flowers_batch.errors import InputError
from flowers_batch.sources.images import Image
from flowers_batch.sources.reading import ReadError
from flowers_batch.sources.source import Source

_BATCHES_AHEAD = 2  # that are decoded while the one before is trained on
_BYTES = SIDE * SIDE * 3  # of a photo's pixels
_TASK_SIZE = 4  # photos that a thread is given at once, at most: handing over takes time, too
_MAX_DISK_SHARE = 1 / 2  # of the free space on the disk of scratch files


class PixelReader:
    """Reads and decodes photos ahead, in threads, and keeps their pixels in a scratch file.

    Args:
        reader: Reads the photos' files.
        photos: All photos that may be requested.
        digests: SHA-256 of each one's file; other files are refused.
        batch_size: Photos in a batch.
        threads: Photos that are decoded at once.
    """

    def __init__(
        self, reader: Source, photos: Sequence[Image], digests: Sequence[bytes], batch_size: int, threads: int
    ):
        self._reader, self._photos, self._digests, self.batch_size = reader, photos, digests, batch_size
        self._budget = PixelBudget(threads * PIXELS_PER_THREAD)
        self._pool = ThreadPoolExecutor(threads, "pixels")
        self._task = max(1, min(_TASK_SIZE, batch_size // threads))
        self._kept, self._is_kept = _scratch(len(photos) * _BYTES), np.zeros(len(photos), bool)
        prepare_process()

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
        ahead: deque[tuple[NDArray[np.uint8], list[Future[None]]]] = deque()
        try:
            for start in range(0, len(indices), self.batch_size):
                part = indices[start : start + self.batch_size].tolist()
                pixels = np.empty((len(part), SIDE, SIDE, 3), np.uint8)
                loading = [
                    self._pool.submit(self._load, part[first : first + self._task], pixels[first : first + self._task])
                    for first in range(0, len(part), self._task)
                ]
                ahead.append((pixels, loading))
                if len(ahead) > _BATCHES_AHEAD:
                    yield _finished(*ahead.popleft())
            while ahead:
                yield _finished(*ahead.popleft())
        finally:
            for _, loading in ahead:
                for each in loading:
                    each.cancel()

    def close(self) -> None:
        """End the threads, and delete the scratch file."""
        self._pool.shutdown(cancel_futures=True)
        if self._kept is not None:
            self._kept.close()

    def _load(self, indices: Sequence[int], pixels: NDArray[np.uint8]) -> None:
        for index, own in zip(indices, pixels, strict=True):
            self._load_one(index, own)

    def _load_one(self, index: int, pixels: NDArray[np.uint8]) -> None:
        if self._is_kept[index]:
            assert self._kept is not None
            os.preadv(self._kept.fileno(), [pixels.data], index * _BYTES)
            return
        photo = self._photos[index]
        try:
            data = self._reader.read(photo)
            if hashlib.sha256(data).digest() != self._digests[index]:
                raise ReadError("unreadable", "its file has changed")
            decode(data, sys.maxsize, self._budget, lambda: pixels)
        except (ReadError, DecodeError) as error:
            raise InputError(
                f"{photo.path} is no longer what was encoded ({error}): restore it, or encode the photos again and "
                "start in another folder."
            ) from None
        if self._kept is not None:
            with suppress(OSError):  # the disk is full: the photo is decoded again
                # Faster than a mapped file, whose pages are faulted in one by one.
                self._is_kept[index] = os.pwrite(self._kept.fileno(), pixels.data, index * _BYTES) == _BYTES


def _scratch(size: int) -> IO[bytes] | None:
    """Return a file that is deleted when the process ends; None if the disk has too little room."""
    if size > _MAX_DISK_SHARE * shutil.disk_usage(tempfile.gettempdir()).free:
        return None
    return tempfile.TemporaryFile(buffering=0)


def _finished(pixels: NDArray[np.uint8], loading: list[Future[None]]) -> NDArray[np.uint8]:
    for each in loading:
        each.result()
    return pixels
