"""Where images come from: a folder, on a disk or in an object store."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa
from pyarrow import fs

from flowers_batch.config import InputError, first_line
from flowers_batch.storage import NOT_UTF8, Folder, Where, open_folder

SUFFIXES = ("jpg", "jpeg", "jpe", "png", "bmp", "gif", "webp", "tif", "tiff", "heic", "heif", "avif")
_EPOCH = datetime.fromtimestamp(0, UTC)
MAX_BYTES = 1 << 30  # no photo is larger; what is would fill an actor's memory before it is looked at


class ReadError(Exception):
    """An image whose bytes cannot be had.

    Attributes:
        reason: `missing`, `unreadable` or `too_large`.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Image:
    """An image as it was listed.

    Attributes:
        path: Its key: relative to the folder, with `/`; `//bytes/` and percent-encoding if it is no UTF-8.
        bytes: Its size.
        mtime: When it last changed, UTC.
        source: The file that holds it, if that holds others too; then `path` alone does not find it.
        offset: Where in that file it is.
    """

    path: str
    bytes: int = 0
    mtime: datetime = _EPOCH
    source: str | None = None
    offset: int | None = None


@dataclass
class FolderSource:
    """All images in a folder and the folders in it.

    Symlinked files are followed, symlinked folders are not.

    Attributes:
        folder: Where the images lie.
        ignored: Files that are no images by their name, counted while listing.
    """

    folder: Folder
    ignored: int = field(default=0, init=False)
    repeated: int = field(default=0, init=False)
    in_path_order: bool = field(default=True, init=False)

    @property
    def url(self) -> str:
        """The folder's absolute path, or its URL."""
        return self.folder.url

    def images(self) -> Iterator[Image]:
        """Lists the images in the order of their full paths' bytes, one folder in memory at a time.

        Raises:
            InputError: A folder cannot be listed, so that images would be left out in silence.
        """
        self.ignored = 0
        if self.folder.is_local:
            yield from self._walk_disk(os.fsencode(self.folder.path), b"")
        else:
            yield from self._walk_store("")

    def _walk_disk(self, root: bytes, prefix: bytes) -> Iterator[Image]:
        try:
            with os.scandir(os.path.join(root, prefix)) as entries:
                found = [(e.name + b"/" * e.is_dir(follow_symlinks=False), e) for e in entries]
        except OSError as error:
            where = os.fsdecode(os.path.join(root, prefix))
            raise InputError(
                f"The folder {where} cannot be listed ({error.strerror}): make it readable, or move it away."
            ) from None
        for name, entry in sorted(found, key=lambda pair: pair[0]):
            if name.endswith(b"/"):
                yield from self._walk_disk(root, prefix + name)
            elif not _is_image(name) or _leads_to_folder(entry):
                self.ignored += 1
            else:
                size, changed = 0, _EPOCH
                # Gone since, a link to nothing, or dated beyond the year 9999: a row all the same.
                with contextlib.suppress(OSError, OverflowError, ValueError):
                    size = entry.stat().st_size
                    changed = datetime.fromtimestamp(entry.stat().st_mtime, UTC)
                yield Image(_as_text(prefix + name), size, changed)

    def _walk_store(self, prefix: str) -> Iterator[Image]:
        try:
            infos = self.folder.filesystem.get_file_info(fs.FileSelector(self.folder.at(prefix)))
        except OSError as error:
            raise InputError(f"{self.folder.url}/{prefix} cannot be listed: {error}.") from None
        found = [(i.base_name + "/" * (i.type == fs.FileType.Directory), i) for i in infos]
        for name, info in sorted(found, key=lambda pair: pair[0].encode()):
            if name.endswith("/"):
                yield from self._walk_store(prefix + name)
            elif _is_image(name.encode()):
                yield Image(prefix + name, info.size, info.mtime or _EPOCH)
            else:
                self.ignored += 1

    def read(self, image: Image) -> bytes:
        """Reads an image's bytes.

        Raises:
            ReadError: It is not there, is no regular file, is too large, or the disk fails.
        """
        try:
            return self._read_disk(image.path) if self.folder.is_local else self._read_store(image.path)
        except FileNotFoundError:
            raise ReadError("missing", "The file is not there any more.") from None
        except OSError as error:
            message = f"{error.strerror}." if error.strerror else first_line(error)
            raise ReadError("unreadable", f"The file cannot be read: {message}") from None

    def _read_disk(self, path: str) -> bytes:
        full = os.path.join(os.fsencode(self.folder.path), path_bytes(path))
        # O_NONBLOCK: a pipe that is named like a photo must not be waited for.
        handle = os.open(full, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ReadError("unreadable", "It is not a regular file.")
            _check_size(status.st_size)
            return file.read()

    def _read_store(self, path: str) -> bytes:
        with self.folder.open(path) as file:
            _check_size(file.size())
            return file.read()


def open_source(where: Where) -> FolderSource:
    """Opens a source of images.

    Raises:
        InputError: There is no such folder.
    """
    folder = open_folder(where)
    info = folder.filesystem.get_file_info(folder.path)
    if info.type == fs.FileType.NotFound:
        raise InputError(f"There is no folder {folder.url}: check its name.")
    if info.type != fs.FileType.Directory:
        raise InputError(f"{folder.url} is not a folder: give the folder that the photos lie in.")
    return FolderSource(folder)


def images_of(rows: pa.Table) -> list[Image]:
    """The images that manifest rows tell of."""
    columns = [rows[field.name].to_pylist() for field in fields(Image)]
    return [Image(*values) for values in zip(*columns, strict=True)]


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ReadError("too_large", f"The file has {size} bytes; {MAX_BYTES} are allowed.")


def _leads_to_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle, or to where nobody may look: reading it will say so
        return False


def _is_image(name: bytes) -> bool:
    return name.lower().endswith(tuple(b"." + suffix.encode() for suffix in SUFFIXES))


def _as_text(path: bytes) -> str:
    try:
        return path.decode()
    except UnicodeDecodeError:
        return NOT_UTF8 + quote_from_bytes(path)


def path_bytes(path: str) -> bytes:
    """The bytes of an image's name: what it is opened by, and the order that images are listed in."""
    if path.startswith(NOT_UTF8):
        return unquote_to_bytes(path.removeprefix(NOT_UTF8))
    return path.encode()
