"""Limits of a process that decodes photos of strangers: rights, files, memory, CPU time per photo."""

from __future__ import annotations

import ctypes
import fcntl
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from threadpoolctl import threadpool_limits

from flowers_batch.errors import RunError

LARGE_PIXELS = 32_000_000  # more than most cameras' photos have, and a fifth of the most that are allowed by default
LARGE_BYTES = 64 << 20  # of a file
_BYTES_PER_PIXEL = 32  # twice what WebP takes, which needs the most
_COPIES = 4  # of a file, that libraries may hold at once
_MAX_OPEN_FILES = 1024  # Google's client takes three to five per read, and ends the process if there is none left
_STACK_BYTES = 1 << 20  # of a thread: a read takes up to three, whose stacks count as memory
_PTHREAD_ATTRIBUTES = 64  # bytes of `pthread_attr_t`, or fewer
_OTHER_CPU_SECONDS = 600.0  # between decoding two images: reading even the largest file takes less
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_SMALL_BYTES = 16 << 20  # a photo of five megapixels


def prepare_libraries() -> None:
    """Have libraries start no threads, and reuse memory: for a process of our own, before it forks."""
    import cv2

    threadpool_limits(1, "blas")
    cv2.setNumThreads(1)
    # If glibc returned every photo's memory to the kernel, the kernel would clear it for the next one, which takes as
    # long as decoding.
    with suppress(AttributeError):  # not glibc
        c = ctypes.CDLL(None)
        c.mallopt(_M_MMAP_THRESHOLD, _SMALL_BYTES)
        c.mallopt(_M_TRIM_THRESHOLD, 2 * _SMALL_BYTES)


def end_with_parent(parent: int) -> None:
    """End this process when its parent ends, even if this process hangs.

    Args:
        parent: The process that should be its parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before
        os._exit(1)


def restrict_process(max_pixels: int, max_file_bytes: int) -> None:
    """Give up what decoding does not need; a photo that takes this process over gains little.

    Args:
        max_pixels: Of a photo.
        max_file_bytes: Of an image's file.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # where memory is scarce, it goes before the network
            Path("/proc/self/oom_score_adj").write_text("1000")
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _limit_memory(max_pixels * _BYTES_PER_PIXEL + _COPIES * max_file_bytes)
        _limit_stacks()
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)  # whatever the parent's parent does with it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGXCPU})
    _limit(resource.RLIMIT_CORE, 0)  # crashes are expected
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _limit_memory(memory: int) -> None:
    """Allow this process `memory` more bytes, but no more than half of what the machine has available.

    Photos that are not large are allowed even where it has less: they are not what fills it.
    """
    used, available = psutil.Process().memory_info().vms, psutil.virtual_memory().available
    _limit(resource.RLIMIT_AS, used + min(memory, max(available // 2, LARGE_PIXELS * _BYTES_PER_PIXEL)))


def _limit_stacks() -> None:
    """Give new threads, those of libraries too, small stacks instead of ones as large as the main thread's."""
    c, attributes = ctypes.CDLL(None), ctypes.create_string_buffer(_PTHREAD_ATTRIBUTES)
    with suppress(AttributeError):  # a C library without it
        set_default = c.pthread_setattr_default_np
        c.pthread_attr_init(attributes)
        c.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK_BYTES))
        set_default(attributes)


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """End this process with SIGXCPU if the block takes more CPU time; wall-clock time counts for nothing.

    Afterwards it may take far more until the next block: a process that an image has damaged may spin in any place.
    """
    _limit_cpu(seconds)
    try:
        yield
    finally:
        _limit_cpu(_OTHER_CPU_SECONDS + seconds)


def _limit_cpu(seconds: float) -> None:
    """Allow this process so many more seconds of CPU time."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


class LargePhotoTurns:
    """Lets the processes of a machine decode photos that need much memory one at a time.

    Args:
        handle: Of a file, open for writing, that all of them lock; the kernel releases the lock of one that dies.
        waiting, decoding: Called before it waits, and when it goes on.
    """

    def __init__(self, handle: int, waiting: Callable[[], None], decoding: Callable[[], None]):
        self._handle, self._waiting, self._decoding = handle, waiting, decoding
        self._depth = 0

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait for this process's turn if a photo has many pixels."""
        if pixels <= LARGE_PIXELS:
            yield
            return
        if not self._depth:
            self._waiting()
            try:
                fcntl.lockf(self._handle, fcntl.LOCK_EX)  # of a process, though all have inherited the descriptor
            except OSError as error:
                raise RunError(
                    f"The temporary folder's file system cannot lock files ({error.strerror}): set TMPDIR to another."
                ) from None
        self._depth += 1
        self._decoding()
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                fcntl.lockf(self._handle, fcntl.LOCK_UN)
