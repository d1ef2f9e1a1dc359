"""A folder as a source of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import pyarrow as pa

from flowers_batch.sources.images import Image, batches_of, path_bytes
from flowers_batch.sources.left_out import LeftOut, start_counting
from flowers_batch.sources.reading import read_bytes, read_disk, read_store
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
        left_out: What the last listing left out.
        repeated: Always 0.
    """

    folder: Folder
    skipping: Skipping = SKIP_SYSTEM
    left_out: LeftOut = field(default_factory=LeftOut, init=False)
    repeated: int = field(default=0, init=False)
    root: ClassVar[None] = None
    in_path_order: ClassVar[bool] = True
    found_by_path: ClassVar[bool] = True

    @property
    def url(self) -> str:
        """The folder's absolute path, or its URL."""
        return self.folder.url

    def batches(self) -> Iterator[pa.RecordBatch]:
        """List the images in the order of their full paths' bytes, one folder in memory at a time: columns `IMAGES`.

        Raises:
            InputError: A folder cannot be listed, so that images would be left out silently.
        """
        self.left_out = start_counting(self.skipping)
        return batches_of(walk(self.folder, self.skipping, self.left_out))

    def read(self, image: Image) -> bytes:
        """Return an image's bytes.

        Raises:
            ReadError: It is not there, is not a regular file, is too large, or cannot be read.
            RunError: The folder no longer exists.
        """
        return read_bytes(self.folder, lambda: self._read(image.path))

    def _read(self, path: str) -> bytes:
        if self.folder.is_local:
            return read_disk(os.path.join(os.fsencode(self.folder.path), path_bytes(path)))
        return read_store(self.folder, path)
