"""A cache of thumbnails, bounded by their bytes."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock


class ThumbnailCache:
    """Keeps the thumbnails that were used last; safe to use from several threads.

    Args:
        max_bytes: Of all thumbnails together.
    """

    def __init__(self, max_bytes: int):
        self._bytes_left = max_bytes
        self._lock = Lock()
        self._kept: OrderedDict[int, bytes] = OrderedDict()  # by row, the one used last at the end

    def get(self, row: int) -> bytes | None:
        """Return the thumbnail of a row; None if it is not kept."""
        with self._lock:
            if row in self._kept:
                self._kept.move_to_end(row)
            return self._kept.get(row)

    def add(self, row: int, thumbnail: bytes) -> None:
        """Keep a thumbnail, in place of those not used for the longest time."""
        with self._lock:
            self._bytes_left += len(self._kept.pop(row, b""))
            self._kept[row] = thumbnail
            self._bytes_left -= len(thumbnail)
            while self._bytes_left < 0:
                self._bytes_left += len(self._kept.popitem(last=False)[1])
