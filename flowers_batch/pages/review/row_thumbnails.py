"""Thumbnails of prediction rows, restricted to the photos that the run was given."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.pages.photos import Photos
from flowers_batch.pages.review.predictions import PredictionTable
from flowers_batch.pages.review.thumbnail_cache import ThumbnailCache
from flowers_batch.pages.thumbnails import NoThumbnail, ThumbnailPool
from flowers_batch.sources.images import Image, images_of
from flowers_batch.sources.lists import ListSource

_CACHED_BYTES = 64 << 20  # ten thousand thumbnails or so
_CACHED_SHARDS = 16  # of some hundred kilobytes each


class RowThumbnails:
    """Makes and caches thumbnails of prediction rows.

    Args:
        table: The predictions.
        follow_links: Whether photos are shown that links in the photos' folder name, but that are outside it.

    Attributes:
        photos: The photos of the run.
    """

    def __init__(self, table: PredictionTable, *, follow_links: bool = False):
        self._table = table
        self.photos = Photos(table.run.folder.url, *table.run.photos, follow_links=follow_links)
        self._pool = ThumbnailPool(self.photos.source) if self.photos.source else None
        self._manifest_rows = lru_cache(_CACHED_SHARDS)(self.photos.in_shard)
        self._cache = ThumbnailCache(_CACHED_BYTES)
        self._named: NDArray[np.bool_] | None = None
        self._list_lock = Lock()

    def thumbnail(self, row: int) -> bytes:
        """Return the thumbnail of a row as a WebP file.

        Raises:
            NoThumbnail: The photo cannot be read or decoded, or is outside the photos' folder.
            InputError: There is no such row, or its photo is not one of the source's.
            RunError: No photo can be decoded.
        """
        thumbnail = self._cache.get(row)
        if thumbnail is None:
            image = self.find_image(row)
            if self._pool is None:
                raise NoThumbnail(self.photos.unavailable)
            thumbnail = self._pool.make(image)
            self._cache.add(row, thumbnail)
        return thumbnail

    @property
    def _is_named(self) -> NDArray[np.bool_]:
        """Whether the list names the photo of each row: bool [rows]."""
        with self._list_lock:  # one thread reads the list, and the others wait for that
            if self._named is None:
                self._named = self.photos.are_named(self._table.paths)
            return self._named

    def find_image(self, row: int) -> Image:
        """Return where to read the photo of a row.

        Raises:
            InputError: There is no such row.
            NoThumbnail: The manifest or the list no longer has it.
        """
        path = self._table.path(row)
        source = self.photos.source
        if isinstance(source, ListSource) and not self._is_named[row]:
            raise NoThumbnail("It is no longer in the list.")
        if source is None or source.found_by_path:
            return Image(path)
        rows = self._manifest_rows(self._table.shard_of(row))
        found = images_of(rows.filter(pc.equal(rows["path"], path))) if rows else []
        if not found:
            raise NoThumbnail("It is no longer in the manifest.")
        return found[0]

    def close(self) -> None:
        """End the processes that decode photos; no thumbnail is made any more."""
        if self._pool:
            self._pool.close()
