"""What tars and tables have in common as sources: files that hold many images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import ClassVar, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.sources.images import EPOCH, Image, batches_of, path_text
from flowers_batch.sources.left_out import LeftOut, start_counting
from flowers_batch.sources.ordering import unique_names
from flowers_batch.sources.reading import ReadError, read_bytes
from flowers_batch.sources.relative_paths import foreign_path
from flowers_batch.sources.skipping import SKIP_SYSTEM, Skipping
from flowers_batch.storage.folder import Folder, fits
from flowers_batch.storage.io_errors import reading

T = TypeVar("T")
_FILES_OPEN = 8  # per process: a shard's images may be in several files, and threads are at different places
DISK_BUFFER_BYTES, STORE_BUFFER_BYTES = 16 << 10, 1 << 20  # each request to a store is slow


@dataclass
class ContainerSource(ABC):
    """Files in one folder, each with many images.

    Attributes:
        folder: The files' folder.
        name: The file's name, or a pattern of names.
        skipping: Which members are left out.
        left_out: What the last listing left out.
        repeated: Always 0: an image with another's path gets `#2`.
    """

    folder: Folder
    name: str
    skipping: Skipping = SKIP_SYSTEM
    left_out: LeftOut = field(default_factory=LeftOut, init=False)
    repeated: int = field(default=0, init=False)
    root: ClassVar[None] = None
    in_path_order: ClassVar[bool] = False
    found_by_path: ClassVar[bool] = False

    @property
    def url(self) -> str:
        """The absolute path or the URL of the file, or the pattern."""
        return self.folder.url_of(self.name)

    @property
    def may_read_stores(self) -> bool:
        """Whether the files are in a store."""
        return not self.folder.is_local

    def is_in_store(self, image: Image) -> bool:
        """Return whether an image is read from a store: all are, or none."""
        return self.may_read_stores

    def local_path(self, image: Image) -> None:  # noqa: B027
        """Return None: no image is a file of its own."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """List the images, file by file in the order of names, and from front to back in each: columns `IMAGES`.

        Raises:
            InputError: A file is incomplete, so that images would be left out silently.
        """
        self.left_out = start_counting(self.skipping)
        return batches_of(self._images())

    def _images(self) -> Iterator[Image]:
        with unique_names() as names:
            with reading(self.url):
                files = self.folder.matching(self.name)
            for name in files:
                with reading(self.folder.url_of(name)):
                    changed = _mtime_of(self.folder, name)
                for path, size, offset in self._members(name):
                    yield Image(path_text(names.unique(path)), size, changed, name, offset)

    def owns(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return whether images of a manifest are in files that the name or the pattern names: bool [rows]."""
        names = [name for name in pc.unique(rows["source"]).to_pylist() if name and self.has_file(name)]
        return pc.is_in(rows["source"], pa.array(names, pa.string()))

    def has_file(self, name: str) -> bool:
        """Return whether a file of this name, if there is one, belongs to the source."""
        return not {"/", "\0"} & set(name) and fits(name.encode(), self.name)

    @abstractmethod
    def _members(self, name: str) -> Iterator[tuple[bytes, int, int | None]]:
        """Yield path, size and offset of each image in a file."""

    def read(self, image: Image) -> bytes:
        """Return an image's bytes.

        Raises:
            ReadError: It is not there, is too large, or cannot be read.
            InputError: It is in a file that is not one of the source.
            RunError: The folder no longer exists.
        """
        if image.source is None or image.offset is None:
            raise ReadError("unreadable", f"It is not stored contiguously in {self.url}.")
        if not self.has_file(image.source):
            raise foreign_path(image.path, self.url)
        name, changed, offset = image.source, image.mtime, image.offset

        def read() -> bytes:
            try:
                return self._read(name, changed, offset, image.bytes)
            except OSError:
                open_shared.cache_clear()  # a handle that failed is opened again
                raise

        return read_bytes(self.folder, read)

    @abstractmethod
    def _read(self, name: str, changed: datetime, offset: int, size: int) -> bytes:
        """Return an image's bytes, read once."""


def _mtime_of(folder: Folder, name: str) -> datetime:
    return folder.filesystem.get_file_info(folder.at(name)).mtime or EPOCH


@lru_cache(_FILES_OPEN)
def open_shared(how: Callable[[pa.NativeFile, str], T], folder: Folder, name: str, changed: datetime) -> T:
    """Return an open file, which threads share.

    Raises:
        ReadError: It is not the file that was listed, so that offsets lead to other photos.
    """
    file = folder.open(name)
    if _mtime_of(folder, name) != changed:  # checked after opening: an open file stays the same, even if it is replaced
        raise ReadError("missing", "The file that holds it was replaced since it was listed.")
    return how(file, folder.url_of(name))
