"""Limits of a process whose threads decode: pixels at once, libraries' threads, memory."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import cv2
from threadpoolctl import threadpool_limits

# More than most cameras' photos have, and a fifth of the largest photo that is allowed.
PIXELS_PER_THREAD = 32_000_000
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_SMALL_BYTES = 16 << 20  # a photo of five megapixels, or the largest of the network's passing arrays


class PixelBudget:
    """Bounds the pixels that a process's threads decode at once, and thereby its memory.

    Args:
        pixels: Pixels at once; a photo that has more is decoded alone.
    """

    def __init__(self, pixels: int):
        self._all = self._free = pixels
        self._turnstile = threading.Lock()
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until `pixels` are free, and hold them until the block ends."""
        pixels = min(pixels, self._all)
        # The turnstile is held while waiting: otherwise small photos could overtake a huge one for ever (starvation).
        with self._turnstile, self._freed:
            self._freed.wait_for(lambda: pixels <= self._free)
            self._free -= pixels
        try:
            yield
        finally:
            with self._freed:
                self._free += pixels
                self._freed.notify()


def prepare_process() -> None:
    """Prepare a process of our own for threads that decode: libraries start no threads, and memory is reused.

    It changes settings of the whole process, so it must be called only in a process of our own.
    """
    threadpool_limits(1, "blas")
    cv2.setNumThreads(1)
    # By default glibc keeps, per thread, the memory of its largest photo. If it returned small blocks to the kernel as
    # well, the kernel would clear them for their next use, which takes as long as decoding a photo.
    with suppress(AttributeError):  # not glibc
        c = ctypes.CDLL(None)
        c.mallopt(_M_MMAP_THRESHOLD, _SMALL_BYTES)
        c.mallopt(_M_TRIM_THRESHOLD, 2 * _SMALL_BYTES)
