"""Pixels of photos that are known to be whole, in the order that is asked for: what a network is trained on."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from flowers_batch.config import InputError
from flowers_batch.decode import PIXELS_A_THREAD, SIDE, DecodeError, PixelBudget, decode, prepare_process
from flowers_batch.feed import Reader
from flowers_batch.sources import Image, ReadError

_AHEAD = 2  # batches that are decoded while the one before is computed


class PixelReader:
    """Reads and decodes ahead, in threads.

    Args:
        reader: Where the photos are read from.
        batch_size: Photos in a batch.
        threads: Photos that are decoded at once.
    """

    def __init__(self, reader: Reader, batch_size: int, threads: int):
        self._reader, self.batch_size = reader, batch_size
        self._budget = PixelBudget(threads * PIXELS_A_THREAD)
        self._pool = ThreadPoolExecutor(threads, "pixels")
        prepare_process()

    def batches(self, photos: Sequence[Image]) -> Iterator[NDArray[np.uint8]]:
        """Yields the photos' pixels in their order: uint8 [N, 224, 224, 3], RGB, of the upright centre squares.

        Raises:
            InputError: A photo cannot be read or decoded any more.
        """
        ahead: deque[tuple[NDArray[np.uint8], list[Future[None]]]] = deque()
        try:
            for start in range(0, len(photos), self.batch_size):
                part = photos[start : start + self.batch_size]
                pixels = np.empty((len(part), SIDE, SIDE, 3), np.uint8)
                ahead.append(
                    (pixels, [self._pool.submit(self._load, *each) for each in zip(part, pixels, strict=True)])
                )
                if len(ahead) > _AHEAD:
                    yield _finished(*ahead.popleft())
            while ahead:
                yield _finished(*ahead.popleft())
        finally:
            for _, loading in ahead:
                for each in loading:
                    each.cancel()

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _load(self, photo: Image, place: NDArray[np.uint8]) -> None:
        try:
            decode(self._reader.read(photo), sys.maxsize, self._budget, lambda: place)
        except (ReadError, DecodeError) as error:
            raise InputError(
                f"{photo.path} could be read when it was encoded, and cannot be now ({error}): encode the photos again."
            ) from None


def _finished(pixels: NDArray[np.uint8], loading: list[Future[None]]) -> NDArray[np.uint8]:
    for each in loading:
        each.result()
    return pixels
