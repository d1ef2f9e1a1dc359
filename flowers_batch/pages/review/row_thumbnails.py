"""Thumbnails of prediction rows, restricted to the photos that the run was given."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from flowers_batch.pages.review.predictions import PredictionTable
from flowers_batch.pages.thumbnails import Photos
from flowers_batch.sources.images import Image
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.reading import ReadError

_CACHED_THUMBNAILS = 20_000  # of some kilobytes each
_CACHED_SHARDS = 64


class RowThumbnails:
    """Makes and caches thumbnails of prediction rows.

    Args:
        table: The predictions.

    Attributes:
        thumbnail: Returns the thumbnail of a row as a WebP file. Raises `ReadError` or `DecodeError` if the photo
            cannot be read or decoded, or is outside the photos' folder, and `InputError` if there is no such row.
    """

    def __init__(self, table: PredictionTable):
        self._table = table
        self.photos = Photos(table.run.folder.url, table.run.job.images)
        self._images_in_shard = lru_cache(_CACHED_SHARDS)(self.photos.in_shard)
        self.thumbnail: Callable[[int], bytes] = lru_cache(_CACHED_THUMBNAILS)(self._thumbnail)

    def _thumbnail(self, row: int) -> bytes:
        (photo,) = self._table.take([row])
        image = self.find_image(row, photo["path"])
        if self.photos.is_outside(image, follow_links=True):
            raise ReadError("unreadable", "Its file is outside the photos' folder.")
        return self.photos.thumbnail(image)

    def find_image(self, row: int, path: str) -> Image:
        """Return where to read the photo of a row.

        Raises:
            ReadError: The manifest no longer has it.
        """
        source = self.photos.source
        if source is None or (source.found_by_path and not isinstance(source, ListSource)):
            return Image(path)
        # A list may name files anywhere, so only files that the manifest has are read.
        try:
            return self._images_in_shard(self._table.shard_of(row))[path]
        except KeyError:
            raise ReadError("missing", "It is no longer in the manifest.") from None
