"""A folder as a source of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.sources.images import Image, batches_of, path_bytes
from flowers_batch.sources.left_out import LeftOut, start_counting
from flowers_batch.sources.reading import IsEnough, read_beneath, read_bytes, read_disk, read_store
from flowers_batch.sources.relative_paths import are_relative, foreign_path, is_relative
from flowers_batch.sources.skipping import SKIP_SYSTEM, Skipping
from flowers_batch.sources.walking import walk
from flowers_batch.storage.folder import Folder


@dataclass
class FolderSource:
    """All images in a folder and the folders in it.

    Links to files and to folders are followed, except to a folder that contains the link.

    Attributes:
        folder: The folder.
        skipping: Which names are left out.
        follows_links: Whether reading follows links that lead outside the folder; listing always does.
        is_enough: Whether the beginning of a file on this machine is all that is read of it: see `read_disk`.
        left_out: What the last listing left out.
        repeated: Always 0.
    """

    folder: Folder
    skipping: Skipping = SKIP_SYSTEM
    follows_links: bool = True
    is_enough: IsEnough | None = None
    left_out: LeftOut = field(default_factory=LeftOut, init=False)
    repeated: int = field(default=0, init=False)
    root: ClassVar[None] = None
    in_path_order: ClassVar[bool] = True
    found_by_path: ClassVar[bool] = True

    @property
    def url(self) -> str:
        """The folder's absolute path, or its URL."""
        return self.folder.url

    @property
    def may_read_stores(self) -> bool:
        """Whether the folder is in a store."""
        return not self.folder.is_local

    def is_in_store(self, image: Image) -> bool:
        """Return whether an image is read from a store: all are, or none."""
        return self.may_read_stores

    def batches(self) -> Iterator[pa.RecordBatch]:
        """List the images in the order of their full paths' bytes, one folder in memory at a time: columns `IMAGES`.

        Raises:
            InputError: A folder cannot be listed, so that images would be left out silently.
        """
        self.left_out = start_counting(self.skipping)
        return batches_of(walk(self.folder, self.skipping, self.left_out))

    def owns(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return whether images of a manifest are below the folder, before links are followed: bool [rows].

        In a store, keys may have parts such as `..`; these are not opened.
        """
        return are_relative(rows["path"]) if self.folder.is_local else pc.is_valid(rows["path"])

    def read(self, image: Image) -> bytes:
        """Return an image's bytes.

        Raises:
            ReadError: It is not there, is not a regular file, is too large, or cannot be read.
            InputError: Its path leads out of the folder, before links are followed.
            RunError: The folder no longer exists.
        """
        self._refuse_foreign(image.path)
        return read_bytes(self.folder, lambda: self._read(image.path))

    def local_path(self, image: Image) -> bytes | None:
        """Return the file on this machine that is an image; None if the folder is in a store.

        Raises:
            InputError: Its path leads out of the folder, before links are followed.
        """
        self._refuse_foreign(image.path)
        return os.path.join(os.fsencode(self.folder.path), path_bytes(image.path)) if self.folder.is_local else None

    def _refuse_foreign(self, path: str) -> None:
        if self.folder.is_local and not is_relative(path):
            raise foreign_path(path, self.url)

    def _read(self, path: str) -> bytes:
        if not self.folder.is_local:
            return read_store(self.folder, path)
        root, name = os.fsencode(self.folder.path), path_bytes(path)
        if self.follows_links:
            return read_disk(os.path.join(root, name), self.is_enough)
        return read_beneath(root, name, self.is_enough)
