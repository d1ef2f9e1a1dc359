"""The files on this machine that are photos of a run, and their sidecars."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from flowers_batch.errors import InputError, RunError
from flowers_batch.exporting.local_photos import LocalPhotos
from flowers_batch.metadata.sidecars import sidecars_of
from flowers_batch.sources.folders import FolderSource
from flowers_batch.sources.images import Image, path_bytes
from flowers_batch.storage.io_errors import reading

_FOLDERS_KEPT = 4  # names of the files of the folder that photos are in, and of those around it


class _Listing(NamedTuple):
    """A folder of photos: its name without links, its disk, the names of its files, and of its sidecars."""

    folder: bytes
    device: int
    names: frozenset[bytes]
    sidecars: frozenset[bytes]


class ShownFile(NamedTuple):
    """A file that exists: a photo or a sidecar.

    Attributes:
        path: Its key.
        where: Its name on this machine.
        folder: The folder that it is in, without links.
        device: The disk that the folder is on.
    """

    path: str
    where: bytes
    folder: bytes
    device: int

    def status(self) -> os.stat_result | None:
        """Return the status of the file that links lead to; None if that is no regular file, or does not exist."""
        try:
            status = os.stat(self.where)
        except OSError:
            return None
        return status if stat.S_ISREG(status.st_mode) else None


class ShownFiles:
    """Finds the files of photos and their sidecars.

    Args:
        photos: The photos.
        tree: A folder, without links, that must not contain photos, nor be among them.

    Raises:
        InputError: The photos' folder and the tree contain one another.
        RunError: The photos' folder is empty: its disk is not mounted.
    """

    def __init__(self, photos: LocalPhotos, tree: str):
        source = photos.source
        self._source, self._tree = source, os.fsencode(tree)
        self._listing = lru_cache(_FOLDERS_KEPT)(self._list)
        if isinstance(source, FolderSource):
            if source.folder.is_missing():
                raise RunError(f"The folder {source.url} is empty: mount its disk, and run the same command again.")
            self._without_links(os.fsencode(source.folder.path))

    def find(self, path: str) -> ShownFile | None:
        """Return the file of a photo; None if it does not exist.

        Raises:
            InputError: It is in a store, is not of the source, or is in the tree.
        """
        where = self._where(path)
        folder, name = os.path.split(where)
        if not name or name in (b".", b"..") or b"\0" in where:
            return None
        listing = self._listing(folder)
        if name not in listing.names and not os.path.lexists(where):  # a list may name it in another case
            return None
        return ShownFile(path, where, listing.folder, listing.device)

    def sidecars(self, photo: ShownFile) -> Iterator[tuple[int, ShownFile]]:
        """Yield the sidecars of a photo, each with its position in `sidecars_of`."""
        parent = os.path.dirname(photo.where)
        found = self._listing(parent).sidecars
        if not found:
            return
        for position, path in enumerate(sidecars_of(photo.path)):
            name = os.path.basename(path_bytes(path))
            if name in found:
                yield position, photo._replace(path=path, where=os.path.join(parent, name))

    def original(self, path: str) -> ShownFile | None:
        """Return the file of a key in a record, which may be any text; None if there is none outside the tree."""
        try:
            found = self.find(path)
        except InputError:
            return None
        is_file = found is not None and found.status() and not _contains(self._tree, os.path.realpath(found.where))
        return found if is_file else None

    def _where(self, path: str) -> bytes:
        where = self._source.local_path(Image(path))
        if where is None:
            raise InputError(f"The photo {path} is not a file on this machine, so no folder can show it.")
        return where

    def _list(self, folder: bytes) -> _Listing:
        with reading(os.fsdecode(folder)), suppress(FileNotFoundError, NotADirectoryError):
            with os.scandir(folder) as scanned:
                entries = list(scanned)
            names = frozenset(entry.name for entry in entries)
            found = (entry for entry in entries if entry.name[-4:].lower() == b".xmp")
            # A link may lead to any file, which `Copies` would give away: programs write none.
            sidecars = frozenset(entry.name for entry in found if entry.is_file(follow_symlinks=False))
            return _Listing(self._without_links(folder), os.stat(folder).st_dev, names, sidecars)
        return _Listing(folder, 0, frozenset(), frozenset())

    def _without_links(self, folder: bytes) -> bytes:
        """Return the name of a folder of photos without links.

        Raises:
            InputError: The tree and the folder contain one another.
        """
        real = os.path.realpath(folder)
        tree, name = os.fsdecode(self._tree), os.fsdecode(folder)
        if _contains(self._tree, real):
            raise InputError(f"The tree {tree} contains the photos' folder {name}: choose another place for the tree.")
        if isinstance(self._source, FolderSource) and _contains(real, self._tree):
            raise InputError(
                f"The tree {tree} is in the photos' folder {name}, so that its entries would count as photos: choose "
                "another place for the tree."
            )
        return real


def _contains(outer: bytes, inner: bytes) -> bool:
    return os.path.commonpath([outer, inner]) == outer
