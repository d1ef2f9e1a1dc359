"""Photos that are files on this machine: where each is, and which photos of a run the source has."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import compress, islice

import pyarrow as pa

from flowers_batch.dataset.photo_sources import open_originals
from flowers_batch.errors import InputError
from flowers_batch.exporting.labelled_photos import LabelledPhoto
from flowers_batch.metadata.sidecars import PhotoFile
from flowers_batch.sources.folders import FolderSource
from flowers_batch.sources.images import PATH, Image, path_bytes
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.relative_paths import foreign_path, is_relative

_PHOTOS_AT_ONCE = 100_000  # in memory; the list is read once for each so many


@dataclass(frozen=True)
class LocalPhotos:
    """The photos of a folder or of a list on this machine.

    Attributes:
        source: The folder, or the list.
    """

    source: FolderSource | ListSource

    def file_of(self, path: str) -> PhotoFile | None:
        """Return the file of a photo by its key; None for an entry of a list that is in a store.

        Raises:
            InputError: The path leads out of the folder.
        """
        if isinstance(self.source, FolderSource):
            if not is_relative(path):
                raise foreign_path(path, self.source.url)
            return PhotoFile(os.fsencode(self.source.folder.path), path_bytes(path))
        where = self.source.local_path(Image(path))
        return None if where is None else PhotoFile(None, where)

    def known(self, photos: Iterable[LabelledPhoto]) -> Iterator[LabelledPhoto]:
        """Yield the photos of a run without the files that the list does not name, if they are those of a list.

        Whoever writes to a run's folder may add any path.

        Raises:
            InputError: The list cannot be read, or names none of them.
        """
        iterator = iter(photos)
        if isinstance(self.source, FolderSource):
            yield from iterator
            return
        found = False
        while some := list(islice(iterator, _PHOTOS_AT_ONCE)):
            paths = pa.array([path for photo in some for path in photo.paths], pa.string())
            are_named = iter(self.source.owns(pa.table({PATH: paths})).to_pylist())
            for photo in some:
                named = tuple(compress(photo.paths, islice(are_named, len(photo.paths))))
                if named:
                    found = True
                    yield replace(photo, paths=named)
        if not found:
            raise InputError(
                f"{self.source.url} lists none of the predictions' photos: give the list of these as `images`."
            )


def open_local_photos(images: str, root: str | None) -> LocalPhotos:
    """Open photos as `open_source` does.

    Raises:
        InputError: They do not exist, or are not files on this machine.
    """
    source = open_originals(images, root)
    if isinstance(source, FolderSource | ListSource) and source.folder.is_local:
        return LocalPhotos(source)
    raise InputError(
        f"The photos of {source.url} are in a tar, a table or an object store, and only files on this machine have "
        "sidecars and links: extract or copy the photos into a folder, and give that as `images`."
    )
