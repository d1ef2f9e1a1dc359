"""Where images come from: a folder, or files that list or hold them; on a disk, or in an object store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import ClassVar, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from flowers_batch.config import InputError, first_line
from flowers_batch.containers import TableSource, TarSource, image_columns
from flowers_batch.lists import ListSource
from flowers_batch.reading import (
    EPOCH,
    IMAGES,
    SUFFIXES,
    Image,
    ReadError,
    batches_of,
    images_of,
    is_image,
    on_disk,
    path_bytes,
    path_text,
    paths_bytes,
    read_bytes,
    read_disk,
    read_store,
)
from flowers_batch.storage import Folder, Where, open_folder, persistently, split_file

__all__ = [
    "IMAGES",
    "SUFFIXES",
    "FolderSource",
    "Image",
    "ReadError",
    "Source",
    "images_of",
    "open_source",
    "path_bytes",
    "paths_bytes",
]
_COMPRESSED = ("gz", "tgz", "bz2", "tbz2", "xz", "txz", "zst", "zip")


class Source(Protocol):
    """What lists images and reads them; small, so that it travels to actors, and read by many threads at once."""

    @property
    def url(self) -> str:
        """What `open_source` opens it by."""

    @property
    def root(self) -> str | None:
        """What the paths of a list are relative to, as it was given."""

    @property
    def folder(self) -> Folder:
        """The folder that its files lie in."""

    @property
    def ignored(self) -> int:
        """Files and members that are no images, counted while listing."""

    @property
    def repeated(self) -> int:
        """Entries of a list that were dropped since they stood there before, counted while listing."""

    @property
    def in_path_order(self) -> bool:
        """Whether the images are listed in the order of their paths' bytes."""

    @property
    def found_by_path(self) -> bool:
        """Whether an image's path alone says where to read it; else its `source` and `offset` do."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Lists the images, each path once, some thousands at a time: batches with the columns `IMAGES`."""

    def read(self, image: Image) -> bytes:
        """Reads an image's bytes, or raises `ReadError`."""


@dataclass
class FolderSource:
    """All images in a folder and the folders in it.

    Symlinked files are followed, symlinked folders are not.

    Attributes:
        folder: Where the images lie.
        ignored: Files that are no images by their name, counted while listing.
        repeated: None ever is.
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
        """Lists the images in the order of their full paths' bytes, one folder in memory at a time: columns `IMAGES`.

        Raises:
            InputError: A folder cannot be listed, so that images would be left out in silence.
        """
        self.ignored = 0
        return batches_of(self._images())

    def _images(self) -> Iterator[Image]:
        entries = self._on_disk if self.folder.is_local else self._in_store
        # What is left of each folder from the root down; no recursion: folders lie as deep as they like.
        path = [entries(b"")]
        while path:
            entry = next(path[-1], None)
            if entry is None:
                path.pop()
            elif isinstance(entry, Image):
                yield entry
            else:
                path.append(entries(entry))

    def _on_disk(self, prefix: bytes) -> Iterator[Image | bytes]:
        """The images of a folder, and the prefixes of the folders in it."""
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
            yield prefix + name if name.endswith(b"/") else on_disk(path_text(prefix + name), where + name)

    def _in_store(self, prefix: bytes) -> Iterator[Image | bytes]:
        """The images with a prefix, and the longer prefixes."""
        folder = prefix.decode()
        try:
            selector = fs.FileSelector(self.folder.at(folder))
            infos = persistently(lambda: self.folder.filesystem.get_file_info(selector))
        except OSError as error:
            raise InputError(f"{self.folder.url}/{folder} cannot be listed: {error}.") from None
        found = [(i.base_name.encode() + b"/" * (i.type == fs.FileType.Directory), i) for i in infos]
        for name, info in sorted(found, key=itemgetter(0)):
            if name.endswith(b"/"):
                yield prefix + name
            elif is_image(name):
                yield Image((prefix + name).decode(), info.size, info.mtime or EPOCH)
            else:
                self.ignored += 1

    def read(self, image: Image) -> bytes:
        """Reads an image's bytes.

        Raises:
            ReadError: It is not there, is no regular file, is too large, or cannot be read.
            RunError: The folder is not there any more.
        """
        return read_bytes(self.folder, lambda: self._read(image.path))

    def _read(self, path: str) -> bytes:
        if self.folder.is_local:
            return read_disk(os.path.join(os.fsencode(self.folder.path), path_bytes(path)))
        return read_store(self.folder, path)


def open_source(where: Where, root: str | None = None) -> Source:
    """Opens a source of images: a folder; a list of paths (`.txt`, `.csv`, `.parquet`); a `.tar`; a `.parquet` table.

    Args:
        where: Its path or URL. A `*` in the last part of it stands for any text, and the whole for all files that
            fit, such as `shards/*.tar`; a folder itself is searched for images alone.
        root: What the paths of a list are relative to; None: the folder that the list lies in.

    Raises:
        InputError: There is no such file or folder, it is of no such kind, or `root` is given for what is no list.
    """
    whole = open_folder(where)
    if whole.filesystem.get_file_info(whole.path).type == fs.FileType.Directory:
        source: Source = FolderSource(whole)
    else:
        source = _open_files(*split_file(where), root)
    if root is not None:
        if not isinstance(source, ListSource):
            raise InputError(f"--root is for lists of paths, and {source.url} is none: leave it out.")
        if not open_folder(root).exists():
            raise InputError(f"There is no folder {open_folder(root).url}: check --root.")
    return source


def _open_files(folder: Folder, pattern: str, root: str | None) -> Source:
    url = folder.url_of(pattern)
    names = folder.matching(pattern)
    if not names:
        raise InputError(f"There is no {'file' if '*' in pattern else 'folder or file'} {url}: check its name.")
    kinds = {name.rpartition(".")[2].lower() for name in names}
    if len(kinds) > 1:
        raise InputError(f"{url} names files of several kinds ({', '.join(sorted(kinds))}): give one kind a run.")
    (kind,) = kinds
    if kind in _COMPRESSED:
        raise InputError(f"{url} is compressed, so that nothing can be read in the midst of it: decompress it first.")
    if kind == "tar":
        return TarSource(folder, pattern)
    if kind == "parquet" and image_columns(_schema(folder, names[0])):
        return TableSource(folder, pattern)
    if kind in ("txt", "csv", "parquet"):
        return ListSource(folder, pattern, root)
    raise InputError(f"{url} is not a folder, nor a list (.txt, .csv, .parquet), a .tar or a .parquet table of images.")


def _schema(folder: Folder, name: str) -> pa.Schema:
    try:
        with persistently(lambda: folder.open(name)) as file:
            return pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{folder.url_of(name)} cannot be read as Parquet: {first_line(error)}") from None


def _leads_to_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle, or to where nobody may look: reading it will say so
        return False
