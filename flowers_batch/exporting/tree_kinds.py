"""How a tree shows photos: by symbolic links, hard links or copies."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

from flowers_batch.errors import RunError
from flowers_batch.exporting.shown_files import ShownFile
from flowers_batch.exporting.tree_record import Entry
from flowers_batch.storage.beneath import READ_FLAGS
from flowers_batch.storage.io_errors import reading

_MTIME_NS = 2_000_000_000  # FAT keeps times to two seconds
_BLOCK_BYTES = 1 << 20
_READABLE = 0o064  # by others than the owner, and writable by the group: of a photo's mode, what a copy gets
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@lru_cache(1024)
def _relative(folder: bytes, start: bytes) -> bytes:
    return os.path.relpath(folder, start)


class Kind(Protocol):
    """How photos are shown.

    Attributes:
        is_atomic: Whether an entry is complete as soon as it has its name.
        remedy: What to do where such entries cannot be made.
    """

    is_atomic: ClassVar[bool]
    remedy: ClassVar[str]

    def entry(self, name: bytes, file: ShownFile) -> Entry | None:
        """Return the entry that shows a file; None if that does not exist."""

    def is_right(self, found: os.stat_result, where: bytes, entry: Entry, file: ShownFile) -> bool:
        """Return whether what has an entry's name shows the file as the entry does."""

    def make(self, entry: Entry, where: bytes, name: bytes, folder: int) -> None:
        """Make an entry.

        Args:
            entry: The entry.
            where: The file that it is to show.
            name: A name that does not exist in the open folder.
            folder: The folder.

        Raises:
            RunError: The file cannot be read.
            OSError: The entry cannot be made.
        """


def is_like(found: os.stat_result, entry: Entry) -> bool:
    """Return whether a regular file has the size and the time of an entry."""
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_size == entry.size
        and entry.mtime_ns is not None
        and abs(found.st_mtime_ns - entry.mtime_ns) <= _MTIME_NS
    )


@dataclass(frozen=True)
class SymbolicLinks:
    """Symbolic links: relative ones to photos on the same disk, which hold wherever that is mounted, else absolute.

    Attributes:
        tree: The tree, without links.
        device: The disk that it is on.
    """

    tree: bytes
    device: int
    is_atomic: ClassVar[bool] = True
    remedy: ClassVar[str] = "its file system has no symbolic links, or you may not make them: use `hardlink` or `copy`"

    def entry(self, name: bytes, file: ShownFile) -> Entry | None:
        """Return the link to a file."""
        folder = file.folder
        if file.device == self.device:
            folder = _relative(folder, os.path.join(self.tree, os.path.dirname(name)))
        return Entry(name, file.path, os.path.join(folder, os.path.basename(file.where)))

    def is_right(self, found: os.stat_result, where: bytes, entry: Entry, file: ShownFile) -> bool:
        """Return whether it is a link to the file."""
        return stat.S_ISLNK(found.st_mode) and os.readlink(where) == entry.target

    def make(self, entry: Entry, where: bytes, name: bytes, folder: int) -> None:
        """Make a link."""
        os.symlink(entry.target or b"", name, dir_fd=folder)


class _Files:
    def entry(self, name: bytes, file: ShownFile) -> Entry | None:
        """Return the entry that is a file, with the size and time of the photo."""
        status = file.status()
        return status and Entry(name, file.path, None, status.st_size, status.st_mtime_ns)


class HardLinks(_Files):
    """Hard links: second names of the same files."""

    is_atomic: ClassVar[bool] = True
    remedy: ClassVar[str] = (
        "files on another file system or of another user cannot have a name there, nor can any where file systems "
        "have no hard links: leave out `hardlink`, or use `copy`"
    )

    def is_right(self, found: os.stat_result, where: bytes, entry: Entry, file: ShownFile) -> bool:
        """Return whether it is the same file."""
        status = file.status()
        return status is not None and os.path.samestat(found, status)

    def make(self, entry: Entry, where: bytes, name: bytes, folder: int) -> None:
        """Make a second name of the file, not of a link to it."""
        os.link(os.path.realpath(where), name, dst_dir_fd=folder)


class Copies(_Files):
    """Copies, with the times of the photos."""

    is_atomic: ClassVar[bool] = False
    remedy: ClassVar[str] = "its file system refuses such a name or such a file: choose a folder on another one"

    def is_right(self, found: os.stat_result, where: bytes, entry: Entry, file: ShownFile) -> bool:
        """Return whether it is another file with the same size and time."""
        status = file.status()
        return status is not None and not os.path.samestat(found, status) and is_like(found, entry)

    def make(self, entry: Entry, where: bytes, name: bytes, folder: int) -> None:
        """Make a copy."""
        url = os.fsdecode(where)
        with reading(url):
            source = os.fdopen(os.open(where, READ_FLAGS), "rb")
        mode = 0o600 | os.fstat(source.fileno()).st_mode & _READABLE
        with source, os.fdopen(os.open(name, _NEW_FILE, mode, dir_fd=folder), "wb") as copy:
            while True:
                with reading(url):
                    block = source.read(_BLOCK_BYTES)
                if not block:
                    break
                copy.write(block)
            copy.flush()
            if not is_like(os.fstat(source.fileno()), entry) or copy.tell() != entry.size:
                raise RunError(f"{url} changed while it was copied: run the same command again.")
            os.utime(copy.fileno(), ns=(entry.mtime_ns or 0,) * 2)
            os.fsync(copy.fileno())
