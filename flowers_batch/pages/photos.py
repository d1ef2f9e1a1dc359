"""The photos of a run: which there are, and where they are read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import compress

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.dataset.manifest import Manifest, find_images, read_manifest, read_rows
from flowers_batch.dataset.photo_sources import open_photos
from flowers_batch.errors import InputError
from flowers_batch.sources.folders import FolderSource
from flowers_batch.sources.images import PATH, Image, path_bytes
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.relative_paths import is_relative
from flowers_batch.sources.source import Source
from flowers_batch.storage.beneath import lead_outside
from flowers_batch.storage.opening import open_folder


class Photos:
    """The photos of a run.

    Args:
        folder: The run's folder, whose manifest knows which file holds a photo.
        images: Where the photos are, as `open_source` takes it; None if that is not followed.
        root: What the paths of a list are relative to.
        follow_links: Whether photos are shown that links in the photos' folder name, but that are outside it.

    Attributes:
        source: Reads the photos; None if they no longer exist.
        unavailable: Why there is no source; empty if there is one.
        follows_links: As given.
    """

    def __init__(self, folder: str, images: str | None, root: str | None = None, *, follow_links: bool = False):
        self._folder, self.follows_links = open_folder(folder), follow_links
        self.source: Source | None = None
        self.unavailable = "" if images else "Its place is not followed."
        if images is None:
            return
        try:
            source = open_photos(images, root)
            if isinstance(source, FolderSource):
                source = replace(source, follows_links=follow_links)
            self.source = source
        except InputError as error:
            self.unavailable = str(error)

    def find(self, paths: Iterable[str]) -> dict[str, Image]:
        """Return where to read photos, by path; without entries that a list no longer has."""
        images = {path: Image(path) for path in paths}
        if self.source and not self.source.found_by_path:
            images |= find_images(self._folder, images.keys())
        return dict(compress(images.items(), self.are_named(pa.array(list(images), pa.string()))))

    def are_named(self, paths: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Return whether the list, if the photos are those of one, names each of some: bool [paths].

        It may name files anywhere, and files that it does not name are not read.
        """
        if not isinstance(self.source, ListSource):
            return np.ones(len(paths), bool)
        return self.source.owns(pa.table({PATH: paths})).to_numpy(zero_copy_only=False)

    def in_shard(self, number: int) -> pa.Table | None:
        """Return the manifest rows of a shard's photos; None if there is no manifest."""
        manifest = self._manifest
        return read_rows(self._folder, manifest.shards[number]) if manifest else None

    @cached_property
    def _manifest(self) -> Manifest | None:
        return read_manifest(self._folder)

    def are_links_outside(self, paths: Sequence[str]) -> list[bool]:
        """Return whether the file of each photo is outside the photos' folder once links are followed.

        A list, a tar or a table was named by the user, wherever a link leads.
        """
        source = self.source
        if not isinstance(source, FolderSource) or not source.folder.is_local:
            return [False] * len(paths)
        are_below = [is_relative(path) for path in paths]
        outside = iter(lead_outside(os.fsencode(source.folder.path), map(path_bytes, compress(paths, are_below))))
        return [is_below and next(outside) for is_below in are_below]

    def sentence_on_links(self, share: str) -> str:
        """Return a sentence on photos that are not shown, since they are links to files outside the photos' folder.

        Args:
            share: How many they are.
        """
        url = self.source.folder.url if self.source else ""
        return f"{share} photos are links to files outside {url}: run with --follow-links to show them."
