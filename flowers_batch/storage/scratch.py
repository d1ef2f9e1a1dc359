"""Private folders for temporary files. What a killed process leaves behind is deleted by the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

PREFIX = "flowers-"  # begins the name of every scratch folder; short, since names of Unix sockets are
NAME_BYTES = len(PREFIX) + 8  # eight random characters follow
_LOCK = "_scratch-lock"  # a file that only scratch folders have; its process holds it, and it names the host
_DELETIONS = 40  # tries, since processes that are about to end may still make files
_DELETION_SECONDS = 0.05  # between two tries


@contextmanager
def scratch_folder(parent: str | None = None) -> Iterator[str]:
    """Give the path of a new folder that only this user may enter; it is deleted when the block is left.

    Folders in the same parent whose processes were killed are deleted first.

    Args:
        parent: Where to make it; None: the temporary folder (`TMPDIR`).

    Raises:
        OSError: It cannot be made.
    """
    parent = parent or tempfile.gettempdir()
    sweep_scratch_folders(parent)
    folder, lock = _make(parent)
    try:
        yield folder
    finally:
        _delete(folder, lock)
        os.close(lock)


def sweep_scratch_folders(parent: str | None = None) -> None:
    """Delete the scratch folders whose processes have ended; those of other users and hosts stay.

    Args:
        parent: Where they are; None: the temporary folder.
    """
    with suppress(OSError), os.scandir(parent or tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and len(entry.name) == NAME_BYTES:
                with suppress(OSError):  # it is no scratch folder, or its file system has no locks
                    _sweep(entry)


def _sweep(entry: os.DirEntry[str]) -> None:
    if not entry.is_dir(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_uid != os.geteuid():
        return
    lock = os.open(os.path.join(entry.path, _LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if _take(lock, entry.path) and os.read(lock, 256).decode() in ("", socket.gethostname()):
            _delete(entry.path, lock)
    finally:
        os.close(lock)


def _make(parent: str) -> tuple[str, int]:
    """Return a new folder, and the descriptor that holds its lock."""
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        try:
            lock = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except BaseException:
            os.rmdir(folder)
            raise
        with ExitStack() as on_error:
            on_error.callback(os.close, lock)
            on_error.callback(_delete, folder, lock)
            if _take_if_possible(lock, folder):
                os.write(lock, socket.gethostname().encode())  # fails if the disk is full
                on_error.pop_all()
                return folder, lock
        # Another process swept the folder before it was locked.


def _take_if_possible(lock: int, folder: str) -> bool:
    try:
        return _take(lock, folder)
    except OSError:  # of a file system without locks: no process can take it, so none will sweep the folder
        return True


def _take(lock: int, folder: str) -> bool:
    """Lock a folder that exists, and return whether that succeeded."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), os.stat(os.path.join(folder, _LOCK)))
    except (BlockingIOError, FileNotFoundError):
        return False


def _delete(path: str, lock: int) -> None:
    """Delete a folder, and its lock last: a later process sweeps what cannot be deleted now.

    A folder or a link that another user put in its place does not contain its lock, and stays.
    """
    for _ in range(_DELETIONS):
        try:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # it is deleted, or no longer there
            return
        try:
            with suppress(OSError):
                if not os.path.samestat(os.fstat(lock), os.stat(_LOCK, dir_fd=folder, follow_symlinks=False)):
                    return
                _empty(folder)
                if os.listdir(folder) == [_LOCK]:
                    os.unlink(_LOCK, dir_fd=folder)
                    os.rmdir(path)
                    return
        finally:
            os.close(folder)
        time.sleep(_DELETION_SECONDS)


def _empty(folder: int) -> None:
    for name in os.listdir(folder):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
        elif name != _LOCK:
            os.unlink(name, dir_fd=folder)
