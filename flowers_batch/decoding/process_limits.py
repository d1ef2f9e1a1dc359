"""Limits of a process whose threads decode: pixels at once, library threads, memory."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import cv2
from threadpoolctl import threadpool_limits

# For each thread that decodes: more than most cameras take, and a fifth of the largest photo that is allowed.
PIXELS_PER_THREAD = 32_000_000
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_SMALL_BYTES = 16 << 20  # a photo of five megapixels, or the largest of the network's passing arrays


class PixelBudget:
    """Bounds the pixels that a process's threads decode at once, and by that its memory.

    Args:
        pixels: How many; a photo that has more is decoded alone.
    """

    def __init__(self, pixels: int):
        self._all = self._free = pixels
        self._door = threading.Lock()
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Waits until so many pixels are free, and holds them."""
        pixels = min(pixels, self._all)
        # Who waits inside keeps the door shut: small photos cannot overtake a huge one for ever.
        with self._door, self._freed:
            self._freed.wait_for(lambda: pixels <= self._free)
            self._free -= pixels
        try:
            yield
        finally:
            with self._freed:
                self._free += pixels
                self._freed.notify()


def prepare_process() -> None:
    """Readies a process for threads that decode a photo each: libraries start no more, and memory is kept for them."""
    threadpool_limits(1, "blas")
    cv2.setNumThreads(1)
    # glibc would keep for each thread what its largest photo took, eight times the memory of one; but to give back all
    # that is small too would have the kernel clear it for the next use, which for a photo takes as long as decoding.
    with suppress(AttributeError):  # of another C library
        c = ctypes.CDLL(None)
        c.mallopt(_M_MMAP_THRESHOLD, _SMALL_BYTES)
        c.mallopt(_M_TRIM_THRESHOLD, 2 * _SMALL_BYTES)
