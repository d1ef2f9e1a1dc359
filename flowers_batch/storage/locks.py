"""Locks that the kernel releases when their process ends."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from flowers_batch.errors import InputError
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.own_files import open_own_file
from flowers_batch.storage.subfolders import make_folder

_HOLDER_BYTES = 1000  # at most, of the name that a holder wrote
_WAIT_SECONDS = 0.5  # between two tries to take a lock


@contextmanager
def hold_lock(path: str, url: str) -> Iterator[None]:
    """Hold a lock file, which names its holder, until the block is left or the process ends, however it ends.

    Args:
        path: The lock file; it is made, with its folder, if it is not there, and stays.
        url: The folder that it protects, for error messages.

    Raises:
        InputError: Another process holds it, it cannot be made, is a link, has several names or is no regular file, or
            its file system has no locks.
    """
    with _opened(path, url) as handle:
        if not try_lock(handle, url) or not _is_at(path, handle):
            raise InputError(
                f"{url} is being written by another run ({_holder(handle) or 'just started'}): "
                "wait until it ends, or choose another folder."
            )
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, _own_name().encode(), 0)
        except OSError as error:
            raise _unwritable(url, error) from None
        yield


@contextmanager
def wait_for_lock(path: str, url: str, progress: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file as `hold_lock` does, but wait as long as another process holds it.

    Args:
        path, url: As for `hold_lock`.
        progress: Called every half second while it waits.

    Raises:
        InputError: It cannot be made, is a link, has several names or is no regular file, or its file system has no
            locks.
    """
    while True:
        with _opened(path, url) as handle:
            if try_lock(handle, url) and _is_at(path, handle):
                yield
                return
        progress()
        time.sleep(_WAIT_SECONDS)


def try_lock(handle: int, name: str) -> bool:
    """Lock an open file, unless another process holds it; the lock ends when the file is closed.

    Args:
        handle: The file, open for writing: some network file systems lock no others.
        name: What it protects, for the error message.

    Returns:
        Whether it is locked now.

    Raises:
        InputError: Its file system has no locks, or the service that gives them does not answer.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(
            f"The file system of {name} cannot lock files ({reason_of(error)}): have it mounted with locks, or choose "
            "a place on another one."
        ) from None
    return True


@contextmanager
def _opened(path: str, url: str) -> Iterator[int]:
    try:
        make_folder(os.path.dirname(path))
        handle = open_own_file(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise _unwritable(url, error) from None
    try:
        yield handle
    finally:
        os.close(handle)


def _is_at(path: str, handle: int) -> bool:
    """Return whether a file still has its name: a lock on one that was deleted meanwhile keeps no process out."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> str:
    with suppress(OSError):
        return os.pread(handle, _HOLDER_BYTES, 0).decode(errors="replace").strip()
    return ""


def _own_name() -> str:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"host {socket.gethostname()}, process {os.getpid()}, since {since}"


def _unwritable(url: str, error: OSError) -> InputError:
    return InputError(f"{url} cannot be written to ({reason_of(error)}): choose another folder.")
