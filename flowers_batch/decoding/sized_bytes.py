"""Bytes of any length in a slot of fixed size, with their length in front."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LENGTH = np.dtype("<u4")
HEAD_BYTES = _LENGTH.itemsize


def put_bytes(slot: NDArray[np.uint8], content: NDArray[np.uint8]) -> None:
    """Put bytes into a slot, which must have room for `HEAD_BYTES` more."""
    slot[:HEAD_BYTES] = np.array([len(content)], _LENGTH).view(np.uint8)
    slot[HEAD_BYTES : HEAD_BYTES + len(content)] = content


def take_bytes(slot: NDArray[np.uint8]) -> bytes:
    """Return the bytes in a slot; at most what it holds, whatever length it states."""
    (length,) = slot[:HEAD_BYTES].view(_LENGTH)
    return slot[HEAD_BYTES : HEAD_BYTES + int(length)].tobytes()
