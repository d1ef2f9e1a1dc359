"""The entries of a tree on the disk: what is there, making and removing them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import IntEnum

from flowers_batch.errors import RunError
from flowers_batch.exporting.shown_files import ShownFile, ShownFiles
from flowers_batch.exporting.tree_kinds import Kind, is_like
from flowers_batch.exporting.tree_record import OWN, Entry
from flowers_batch.storage.folder import SCRATCH
from flowers_batch.storage.io_errors import reading_error, writing_error
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.subfolders import open_subfolder

_UNSUITED = {  # how a file system, or its rules, refuse an entry of a kind
    *(errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK, errno.EINVAL, errno.EILSEQ),
    *(errno.ENAMETOOLONG, errno.EFBIG),
}
_SCRATCH = os.fsencode(f"{SCRATCH}entry")  # in the folder `OWN`, which one process holds


class State(IntEnum):
    """What has an entry's name: nothing, the entry as it is to be, another one that this program made, or anything."""

    ABSENT, RIGHT, OWN, FOREIGN = range(4)


class TreeDisk:
    """Looks at the entries of a tree, makes and removes them. Links to folders in the tree are not followed.

    Args:
        tree: The tree, without links.
        kind: What entries are made.
        photos: The files of the photos.
    """

    def __init__(self, tree: bytes, kind: Kind, photos: ShownFiles):
        self._tree, self._kind, self._photos = tree, kind, photos
        self._open = ExitStack()
        self._folder: tuple[bytes, int] | None = None  # the one that is open

    def state(self, entry: Entry, file: ShownFile | None, made: Sequence[Entry]) -> State:
        """Return what has an entry's name.

        Args:
            entry: The entry.
            file: What it is to show; None if there is to be no entry.
            made: What earlier runs made with this name, or may have made.

        Raises:
            RunError: The disk fails.
        """
        where = self._where(entry.name)
        try:
            found = os.lstat(where)
            if file and self._kind.is_right(found, where, entry, file):
                return State.RIGHT
            target = os.readlink(where) if stat.S_ISLNK(found.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return State.ABSENT
        except OSError as error:
            raise reading_error(os.fsdecode(where), error) from error
        return State.OWN if any(self._is_own(found, target, each) for each in made) else State.FOREIGN

    def _is_own(self, found: os.stat_result, target: bytes | None, made: Entry) -> bool:
        """Return whether a file or link is an entry that was made, and that nobody has changed since."""
        if target is not None or made.target is not None:
            return target == made.target
        return is_like(found, made) or self._is_photo(found, made.path)

    def _is_photo(self, found: os.stat_result, path: str) -> bool:
        """Return whether a file is the photo itself, which may have been changed by any of its names."""
        original = self._photos.original(path)
        status = original.status() if original else None
        return status is not None and os.path.samestat(found, status)

    def make(self, entry: Entry, where: bytes, state: State) -> None:
        """Make an entry.

        Args:
            entry: The entry.
            where: The file that it is to show.
            state: What has its name: only what is `OWN` is replaced.

        Raises:
            RunError: It cannot be made.
        """
        with self._explained(entry):
            if state not in (State.ABSENT, State.OWN):
                raise FileExistsError
            folder, name = self._opened(entry.name)
            if state == State.ABSENT and self._kind.is_atomic:
                self._kind.make(entry, where, name, folder)
                return
            with open_subfolder(os.fsdecode(self._tree), OWN) as own:
                _remove(_SCRATCH, own)  # of a killed run
                try:
                    self._kind.make(entry, where, _SCRATCH, own)
                    if state == State.ABSENT:
                        _rename_new(_SCRATCH, own, name, folder)
                    else:
                        os.replace(_SCRATCH, name, src_dir_fd=own, dst_dir_fd=folder)
                finally:
                    _remove(_SCRATCH, own)

    def is_removable(self, made: Sequence[Entry]) -> bool:
        """Return whether nothing is lost with what earlier runs made: it is a link, or the photo exists elsewhere."""
        return all(entry.target is not None or self._photos.original(entry.path) for entry in made)

    def remove(self, entry: Entry) -> None:
        """Remove an entry, and the folders that are empty then.

        Raises:
            RunError: It cannot be removed.
        """
        with self._explained(entry):
            folder, name = self._opened(entry.name)
            _remove(name, folder)
        parent = os.path.dirname(entry.name)
        with suppress(OSError):
            while parent:
                os.rmdir(self._where(parent))
                self.close()
                parent = os.path.dirname(parent)

    def close(self) -> None:
        """Close the folder that is open."""
        self._open.close()
        self._folder = None

    def _where(self, name: bytes) -> bytes:
        return os.path.join(self._tree, name)

    def _opened(self, name: bytes) -> tuple[int, bytes]:
        """Return the folder of an entry, open, and the entry's name in it."""
        folder, base = os.path.split(name)
        if self._folder is None or self._folder[0] != folder:
            self.close()
            opened = open_subfolder(os.fsdecode(self._tree), os.fsdecode(folder), make=True)
            self._folder = folder, self._open.enter_context(opened)
        return self._folder[1], base

    @contextmanager
    def _explained(self, entry: Entry) -> Iterator[None]:
        url = os.fsdecode(self._where(entry.name))
        try:
            yield
        except FileExistsError:
            raise RunError(f"Another program has made {url} meanwhile: run the same command again.") from None
        except OSError as error:
            if error.errno in _UNSUITED:
                raise RunError(f"{url} cannot be made ({reason_of(error)}): {self._kind.remedy}.") from None
            raise writing_error(url, error) from None


def _remove(name: bytes, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _rename_new(name: bytes, folder: int, new: bytes, new_folder: int) -> None:
    """Rename a file, unless the new name exists."""
    try:
        os.link(name, new, src_dir_fd=folder, dst_dir_fd=new_folder, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with suppress(FileNotFoundError):
            os.stat(new, dir_fd=new_folder, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=new_folder)
