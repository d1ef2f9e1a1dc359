"""Memory that a process shares with the workers that it starts."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]


def make_memory_file(size: int, name: str) -> int:
    """Return the descriptor of a file in memory of a fixed size, which no process can shrink or enlarge.

    It counts neither against /dev/shm, which is small in containers, nor against the workers' limit on files. Elsewhere
    than on Linux it is a temporary file without a name.

    Args:
        size: In bytes.
        name: For whoever looks at the process.
    """
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
        os.ftruncate(handle, size)
        return handle
    handle = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(handle, size)
    # A process that maps more than a file has is killed when it touches the rest.
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return handle


def map_array(handle: int, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return an array that is backed by a file: what one process writes into it, all others see.

    Args:
        handle: The file's descriptor, which is no longer needed afterwards.
        shape, dtype: Of the array, which starts at the file's first byte.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(handle, max(size, 1)), dtype, math.prod(shape)).reshape(shape)
