"""A folder as a source of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import ClassVar

import pyarrow as pa
from pyarrow import fs

from flowers_batch.errors import InputError, first_line
from flowers_batch.sources.images import (
    EPOCH,
    Image,
    batches_of,
    is_image,
    path_bytes,
    path_text,
    stat_image,
)
from flowers_batch.sources.reading import read_bytes, read_disk, read_store
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.retries import with_retries


@dataclass
class FolderSource:
    """All images in a folder and the folders in it.

    Symlinked files are followed, symlinked folders are not.

    Attributes:
        folder: The folder.
        ignored: Files that are no images by their name, counted while listing.
        repeated: Always 0.
    """

    folder: Folder
    ignored: int = field(default=0, init=False)
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
        self.ignored = 0
        return batches_of(self._images())

    def _images(self) -> Iterator[Image]:
        entries = self._list_disk if self.folder.is_local else self._list_store
        # What is left of each folder from the root down; no recursion, since folders may be nested deeply.
        path = [entries(b"")]
        while path:
            entry = next(path[-1], None)
            if entry is None:
                path.pop()
            elif isinstance(entry, Image):
                yield entry
            else:
                path.append(entries(entry))

    def _list_disk(self, prefix: bytes) -> Iterator[Image | bytes]:
        """Yield the images of a folder, and the prefixes of the folders in it."""
        names = []
        where = os.path.join(os.fsencode(self.folder.path), prefix)
        try:
            with os.scandir(where) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        names.append(entry.name + b"/")
                    elif is_image(entry.name) and not _leads_to_folder(entry):
                        names.append(entry.name)
                    else:
                        self.ignored += 1
        except OSError as error:
            raise InputError(
                f"The folder {os.fsdecode(where)} cannot be listed ({error.strerror}): make it readable, or move it "
                "away."
            ) from None
        for name in sorted(names):
            yield prefix + name if name.endswith(b"/") else stat_image(path_text(prefix + name), where + name)

    def _list_store(self, prefix: bytes) -> Iterator[Image | bytes]:
        """Yield the images with a prefix, and the longer prefixes."""
        folder = prefix.decode()
        try:
            selector = fs.FileSelector(self.folder.at(folder))
            infos = with_retries(lambda: self.folder.filesystem.get_file_info(selector))
        except OSError as error:
            raise InputError(
                f"{self.folder.url}/{folder} cannot be listed ({first_line(error)[:-1]}): check connection and "
                "permissions, and run the same command again."
            ) from None
        found = [(i.base_name.encode() + b"/" * (i.type == fs.FileType.Directory), i) for i in infos]
        for name, info in sorted(found, key=itemgetter(0)):
            if name.endswith(b"/"):
                yield prefix + name
            elif is_image(name):
                yield Image((prefix + name).decode(), info.size, info.mtime or EPOCH)
            else:
                self.ignored += 1

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


def _leads_to_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # circular links, or no permission: reading it will say so
        return False
