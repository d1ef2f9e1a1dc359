"""Private folders for temporary files. What a killed process leaves behind is deleted by the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PREFIX = "flowers-batch-"  # begins the name of every scratch folder
NAME_BYTES = len(PREFIX) + 8  # eight random characters follow
_LOCK = "lock"  # the file that the folder's process holds; its content is the host's name
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
        _delete(folder)
        os.close(lock)


def sweep_scratch_folders(parent: str | None = None) -> None:
    """Delete the scratch folders whose processes have ended; those of other users and hosts stay.

    Args:
        parent: Where they are; None: the temporary folder.
    """
    with suppress(OSError), os.scandir(parent or tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and len(entry.name) == NAME_BYTES:
                with suppress(OSError):  # another process deletes it, or its file system has no locks
                    _sweep(entry)


def _sweep(entry: os.DirEntry[str]) -> None:
    if not entry.is_dir(follow_symlinks=False) or entry.stat(follow_symlinks=False).st_uid != os.geteuid():
        return
    lock = _open_lock(entry.path)
    try:
        if _take(lock, entry.path) and os.read(lock, 256).decode() in ("", socket.gethostname()):
            _delete(entry.path)
    finally:
        os.close(lock)


def _make(parent: str) -> tuple[str, int]:
    """Return a new folder, and the descriptor that holds its lock."""
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        try:
            lock = _open_lock(folder)
        except FileNotFoundError:  # another process swept it before it was locked
            continue
        except OSError:
            _delete(folder)
            raise
        try:
            is_ours = _take(lock, folder)
        except OSError:  # no process can lock it, so none will sweep it
            is_ours = True
        if is_ours:
            os.write(lock, socket.gethostname().encode())
            return folder, lock
        os.close(lock)


def _open_lock(folder: str) -> int:
    return os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _take(lock: int, folder: str) -> bool:
    """Lock a folder that exists, and return whether that succeeded."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), os.stat(os.path.join(folder, _LOCK)))
    except (BlockingIOError, FileNotFoundError):
        return False


def _delete(folder: str) -> None:
    for _ in range(_DELETIONS):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(_DELETION_SECONDS)
