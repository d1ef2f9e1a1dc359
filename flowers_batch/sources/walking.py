"""Walking a folder on a disk or in a store, one folder in memory at a time."""

from __future__ import annotations

import errno
import os
import stat
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from operator import itemgetter
from typing import ClassVar, Generic, TypeVar

from pyarrow import fs

from flowers_batch.errors import InputError
from flowers_batch.sources.images import EPOCH, Image, is_image, path_text, stat_image
from flowers_batch.sources.left_out import LeftOut
from flowers_batch.sources.skipping import Skipping
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.retries import with_retries

Details = TypeVar("Details")  # what a listing says of a file, besides its name
_MAX_COUNTED = 100_000  # what is looked at to count the photos that are left out for one reason
_LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def walk(folder: Folder, skipping: Skipping, left_out: LeftOut) -> Iterator[Image]:
    """Yield the images in a folder and the folders in it, in the order of their full paths' bytes.

    Args:
        folder: The folder.
        skipping: Which names are left out.
        left_out: Gains the counts of what is left out.

    Raises:
        InputError: A folder cannot be listed, so that images would be left out silently.
    """
    walk_of = _DiskWalk if folder.is_local else _StoreWalk
    return walk_of(folder, skipping, left_out).images()


class _Walk(ABC, Generic[Details]):
    """A walk through a folder.

    Attributes:
        listing_cost: What listing a folder costs, in files that are looked at.
    """

    listing_cost: ClassVar[int]

    def __init__(self, folder: Folder, skipping: Skipping, left_out: LeftOut):
        self.folder = folder
        self._skipping = skipping
        self._left_out = left_out
        self._root = os.fsencode(os.path.basename(folder.path.rstrip("/")))
        self._looked_at: Counter[str] = Counter()  # by the kind of what is left out

    def images(self) -> Iterator[Image]:
        """Yield the images."""
        # What is left of each folder from the root down; no recursion, since folders may be nested deeply.
        chain = [(self._identity(b""), self._images_in(b""))]
        while chain:
            entry = next(chain[-1][1], None)
            if entry is None:
                chain.pop()
            elif isinstance(entry, Image):
                yield entry
            elif (identity := self._identity(entry)) in map(itemgetter(0), chain):
                self._left_out.loops.add(path_text(entry[:-1]))
            else:
                chain.append((identity, self._images_in(entry)))

    def _images_in(self, prefix: bytes) -> Iterator[Image | bytes]:
        """Yield the images of a folder, and the prefixes of the folders in it."""
        found = []
        for name, is_folder, details in self._entries(prefix):
            path = prefix + name
            kind = self._skipping.kind(path, is_folder=is_folder, root=self._root)
            if is_folder and kind:
                self._count_skipped(path + b"/", kind)
            elif is_folder:
                found.append((name + b"/", details))
            elif self._left_out.takes(path, kind):
                found.append((name, details))
        for name, details in sorted(found, key=itemgetter(0)):
            yield prefix + name if name.endswith(b"/") else self._image(prefix + name, details)

    def _count_skipped(self, prefix: bytes, kind: str) -> None:
        """Count the photos in a folder that is left out, as far as it may be listed and `_MAX_COUNTED` allows."""
        photos, folders = 0, [prefix]
        while folders and self._looked_at[kind] < _MAX_COUNTED:
            folder = folders.pop()
            self._looked_at[kind] += self.listing_cost
            with suppress(OSError):
                for name, is_folder in islice(self._names(folder), max(_MAX_COUNTED - self._looked_at[kind], 0)):
                    self._looked_at[kind] += 1
                    photos += not is_folder and is_image(name)
                    if is_folder:
                        folders.append(folder + name + b"/")
        is_part = self._looked_at[kind] >= _MAX_COUNTED
        if photos or is_part:
            self._left_out.skipped[kind] += photos
        if is_part:
            self._left_out.at_least.add(kind)

    @abstractmethod
    def _identity(self, prefix: bytes) -> Hashable:
        """Return what tells a folder from all others, however many links lead to it."""

    @abstractmethod
    def _entries(self, prefix: bytes) -> Iterator[tuple[bytes, bool, Details]]:
        """Yield what is in a folder: its name, whether it is a folder, and what `_image` needs; links are followed."""

    @abstractmethod
    def _names(self, prefix: bytes) -> Iterator[tuple[bytes, bool]]:
        """Yield what is in a folder that is left out: its name, and whether it is a folder; no link is followed."""

    @abstractmethod
    def _image(self, path: bytes, details: Details) -> Image:
        """Return an image as it was listed."""


class _DiskWalk(_Walk[None]):
    listing_cost = 1

    def _where(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self.folder.path), path)

    def _identity(self, prefix: bytes) -> Hashable:
        with self._explain(prefix):
            found = os.stat(self._where(prefix))
            return found.st_dev, found.st_ino or prefix  # some network file systems have no inodes

    def _entries(self, prefix: bytes) -> Iterator[tuple[bytes, bool, None]]:
        with self._explain(prefix), os.scandir(self._where(prefix)) as entries:
            for entry in entries:
                is_folder = self._leads_to_folder(entry, prefix) if entry.is_symlink() else entry.is_dir()
                if is_folder is not None:
                    yield entry.name, is_folder, None

    def _leads_to_folder(self, link: os.DirEntry[bytes], prefix: bytes) -> bool | None:
        """Return whether a link leads to a folder; None if it is left out.

        Raises:
            InputError: It cannot be said.
        """
        try:
            return stat.S_ISDIR(os.stat(link.path).st_mode)
        except OSError as error:
            if is_image(link.name):  # a row, which fails with the reason
                return False
            path = prefix + link.name
            if self._skipping.kind(path, is_folder=True):
                return None
            if error.errno in _LEADS_NOWHERE:
                self._left_out.broken_links.add(path_text(path))
                return None
            raise InputError(
                f"The link {os.fsdecode(self._where(path))} cannot be followed ({error.strerror}): make its target "
                "readable, or leave it out with `exclude`."
            ) from None

    @contextmanager
    def _explain(self, prefix: bytes) -> Iterator[None]:
        """Raise errors of listing a folder as a sentence."""
        try:
            yield
        except OSError as error:
            folder = os.fsdecode(self._where(prefix))
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise InputError(
                    f"The folder {folder} vanished while it was listed: run the same command again, or leave it out "
                    "with `exclude`."
                ) from None
            raise InputError(
                f"The folder {folder} cannot be listed ({error.strerror}): make it readable, or leave it out with "
                "`exclude`."
            ) from None

    def _names(self, prefix: bytes) -> Iterator[tuple[bytes, bool]]:
        with os.scandir(self._where(prefix)) as entries:
            for entry in entries:
                yield entry.name, entry.is_dir(follow_symlinks=False)

    def _image(self, path: bytes, details: None) -> Image:
        return stat_image(path_text(path), self._where(path))


class _StoreWalk(_Walk[fs.FileInfo]):
    listing_cost = 1000  # a request takes as long as it takes to look at a thousand files

    def _identity(self, prefix: bytes) -> Hashable:
        return prefix

    def _entries(self, prefix: bytes) -> Iterator[tuple[bytes, bool, fs.FileInfo]]:
        try:
            infos = with_retries(lambda: self._infos(prefix))
        except OSError as error:
            raise InputError(
                f"{self.folder.url_of(prefix.decode())} cannot be listed ({reason_of(error)}): check connection "
                "and permissions and run the same command again, or leave it out with `exclude`."
            ) from None
        for info in infos:
            if self._is_nameless(info, prefix):
                self._left_out.nameless_folders.add(f"{prefix.decode()}/")
            else:
                yield info.base_name.encode(), info.type == fs.FileType.Directory, info

    def _names(self, prefix: bytes) -> Iterator[tuple[bytes, bool]]:
        for info in self._infos(prefix):
            if not self._is_nameless(info, prefix):
                yield info.base_name.encode(), info.type == fs.FileType.Directory

    def _infos(self, prefix: bytes) -> list[fs.FileInfo]:
        return self.folder.filesystem.get_file_info(fs.FileSelector(self.folder.at(prefix.decode())))

    def _is_nameless(self, info: fs.FileInfo, prefix: bytes) -> bool:
        """Return whether keys go on with another slash: pyarrow takes such a folder for the one that contains it."""
        return info.path.rstrip("/") == self.folder.at(prefix.decode()).rstrip("/")

    def _image(self, path: bytes, details: fs.FileInfo) -> Image:
        return Image(path.decode(), details.size, details.mtime or EPOCH)
