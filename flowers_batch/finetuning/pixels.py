"""Pixels of photos in the requested order: what a network is trained on."""

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
from flowers_batch.decoding.formats import DecodeError
from flowers_batch.decoding.process_limits import PIXELS_PER_THREAD, PixelBudget, prepare_process
from flowers_batch.decoding.resizing import SIDE
from flowers_batch.encoding.feed import Reader
from flowers_batch.errors import InputError
from flowers_batch.sources.images import Image
from flowers_batch.sources.reading import ReadError

_AHEAD = 2  # batches that are made ready while the one before is computed
_BYTES = SIDE * SIDE * 3  # of a photo's pixels
_TASK = 4  # photos that a thread is given at once, where there are enough of them: to give takes time, too
_DISK_SHARE = 1 / 2  # of what is free on the disk for scratch files, at most


class PixelReader:
    """Reads and decodes ahead, in threads; photos that are asked for again come from a scratch file, decoded already.

    Args:
        reader: Where the photos are read from.
        photos: All that may be asked for.
        digests: SHA-256 of each one's file: another file is refused.
        batch_size: Photos in a batch.
        threads: Photos that are decoded at once.
    """

    def __init__(
        self, reader: Reader, photos: Sequence[Image], digests: Sequence[bytes], batch_size: int, threads: int
    ):
        self._reader, self._photos, self._digests, self.batch_size = reader, photos, digests, batch_size
        self._budget = PixelBudget(threads * PIXELS_PER_THREAD)
        self._pool = ThreadPoolExecutor(threads, "pixels")
        self._task = max(1, min(_TASK, batch_size // threads))
        self._kept, self._is_kept = _scratch(len(photos) * _BYTES), np.zeros(len(photos), bool)
        prepare_process()

    @property
    def keeps(self) -> bool:
        """Whether there is room for all pixels in the scratch file."""
        return self._kept is not None

    def batches(self, places: NDArray[np.int_]) -> Iterator[NDArray[np.uint8]]:
        """Yields pixels: uint8 [N, 224, 224, 3], RGB, of the upright centre squares.

        Args:
            places: int: which photos, in the order in which they are to come.

        Raises:
            InputError: A photo cannot be read or decoded any more, or is another.
        """
        ahead: deque[tuple[NDArray[np.uint8], list[Future[None]]]] = deque()
        try:
            for start in range(0, len(places), self.batch_size):
                part = places[start : start + self.batch_size].tolist()
                pixels = np.empty((len(part), SIDE, SIDE, 3), np.uint8)
                loading = [
                    self._pool.submit(self._load, part[first : first + self._task], pixels[first : first + self._task])
                    for first in range(0, len(part), self._task)
                ]
                ahead.append((pixels, loading))
                if len(ahead) > _AHEAD:
                    yield _finished(*ahead.popleft())
            while ahead:
                yield _finished(*ahead.popleft())
        finally:
            for _, loading in ahead:
                for each in loading:
                    each.cancel()

    def close(self) -> None:
        """Ends the threads, and gives up the scratch file."""
        self._pool.shutdown(cancel_futures=True)
        if self._kept is not None:
            self._kept.close()

    def _load(self, places: Sequence[int], pixels: NDArray[np.uint8]) -> None:
        for place, own in zip(places, pixels, strict=True):
            self._load_one(place, own)

    def _load_one(self, place: int, pixels: NDArray[np.uint8]) -> None:
        if self._is_kept[place]:
            assert self._kept is not None
            os.preadv(self._kept.fileno(), [pixels.data], place * _BYTES)
            return
        photo = self._photos[place]
        try:
            data = self._reader.read(photo)
            if hashlib.sha256(data).digest() != self._digests[place]:
                raise ReadError("unreadable", "Its file is another.")
            decode(data, sys.maxsize, self._budget, lambda: pixels)
        except (ReadError, DecodeError) as error:
            raise InputError(
                f"{photo.path} is not what was encoded any more ({error}): put it back as it was, or encode anew and "
                "begin in another folder."
            ) from None
        if self._kept is not None:
            with suppress(OSError):  # of a full disk: then it is decoded again
                # Faster than a mapped file, whose pages the system makes one by one.
                self._is_kept[place] = os.pwrite(self._kept.fileno(), pixels.data, place * _BYTES) == _BYTES


def _scratch(size: int) -> IO[bytes] | None:
    """A file that is gone when the process is; None where the disk has no room for so many bytes."""
    if size > _DISK_SHARE * shutil.disk_usage(tempfile.gettempdir()).free:
        return None
    return tempfile.TemporaryFile(buffering=0)


def _finished(pixels: NDArray[np.uint8], loading: list[Future[None]]) -> NDArray[np.uint8]:
    for each in loading:
        each.result()
    return pixels
