"""A cache of image files, bounded by their bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock


class ImageCache:
    """Keeps the image files that were used last; safe to use from several threads.

    Args:
        max_bytes: Of all files together.
    """

    def __init__(self, max_bytes: int):
        self._bytes_left = max_bytes
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()  # the one used last at the end

    def get(self, key: Hashable) -> bytes | None:
        """Return a file; None if it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def add(self, key: Hashable, file: bytes) -> None:
        """Keep a file, in place of those not used for the longest time."""
        with self._lock:
            self._bytes_left += len(self._kept.pop(key, b""))
            self._kept[key] = file
            self._bytes_left -= len(file)
            while self._bytes_left < 0:
                self._bytes_left += len(self._kept.popitem(last=False)[1])
