"""Thumbnails and large pictures of a run's photos, restricted to those that the run was given."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.errors import InputError
from flowers_batch.pages.photos import Photos
from flowers_batch.pages.review.image_cache import ImageCache
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.thumbnails import LARGE, SMALL, NoThumbnail, ThumbnailPool
from flowers_batch.sources.images import Image, images_of
from flowers_batch.sources.lists import ListSource

LARGE_EDGES = (800, 1600, 2400)  # pixels of a large picture's longer edge
_THUMBNAIL_BYTES = 64 << 20  # that are kept: of ten thousand or so
_LARGE_BYTES = 64 << 20  # of a few hundred
_CACHED_SHARDS = 16  # of some hundred kilobytes each


class RowImages:
    """Makes and caches pictures of a run's photos, in processes of their own.

    Args:
        table: The photos.
        follow_links: Whether photos are shown that links in the photos' folder name, but that are outside it.

    Attributes:
        photos: The photos of the run.
    """

    def __init__(self, table: PhotoTable, *, follow_links: bool = False):
        self._table = table
        self.photos = Photos(table.run.folder.url, *table.run.photos, follow_links=follow_links)
        source = self.photos.source
        sizes = [SMALL, *(replace(LARGE, edge=edge) for edge in LARGE_EDGES)]
        self._pools = {size.edge: ThumbnailPool(source, size) for size in sizes} if source else {}
        self._manifest_rows = lru_cache(_CACHED_SHARDS)(self.photos.in_shard)
        self._thumbnails, self._large = ImageCache(_THUMBNAIL_BYTES), ImageCache(_LARGE_BYTES)
        self._named: NDArray[np.bool_] | None = None
        self._list_lock = Lock()

    def thumbnail(self, row: int) -> bytes:
        """Return the thumbnail of a row as a WebP file.

        Raises:
            NoThumbnail: The photo cannot be read or decoded, or is outside the photos' folder.
            InputError: There is no such row, or its photo is not one of the source's.
            RunError: No photo can be decoded.
        """
        return self._picture(row, SMALL.edge, self._thumbnails)

    def large(self, row: int, edge: int) -> bytes:
        """Return a row's photo as a WebP file, its longer edge at most `edge` pixels: one of `LARGE_EDGES`.

        Raises:
            NoThumbnail, InputError, RunError: As `thumbnail` raises them.
        """
        if edge not in LARGE_EDGES:
            raise InputError(f"`edge` must be one of {', '.join(map(str, LARGE_EDGES))}. Received: {edge}.")
        return self._picture(row, edge, self._large)

    def _picture(self, row: int, edge: int, cache: ImageCache) -> bytes:
        picture = cache.get((row, edge))
        if picture is None:
            image = self.find_image(row)
            if not self._pools:
                raise NoThumbnail(self.photos.unavailable)
            picture = self._pools[edge].make(image)
            cache.add((row, edge), picture)
        return picture

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
        rows = self.manifest_row(row)
        found = images_of(rows) if rows else []
        if not found:
            raise NoThumbnail("It is no longer in the manifest.")
        return found[0]

    def manifest_row(self, row: int) -> pa.Table | None:
        """Return what the manifest says of a row's photo, in a table of one row or none; None without a manifest."""
        shard, _ = self._table.place_of(row)
        rows = self._manifest_rows(shard)
        return rows and rows.filter(pc.equal(rows["path"], self._table.path(row)))

    def close(self) -> None:
        """End the processes that decode photos; no picture is made any more."""
        for pool in self._pools.values():
            pool.close()
