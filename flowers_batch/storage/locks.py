"""Locks that the kernel releases when their process ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from flowers_batch.errors import InputError
from flowers_batch.storage.local_files import reason_of


@contextmanager
def hold_lock(path: str, url: str) -> Iterator[None]:
    """Hold a lock file, which names its holder, until the block is left or the process ends, however it ends.

    Args:
        path: The lock file; it is made, with its folder, if it is not there, and stays.
        url: The folder that it protects, for error messages.

    Raises:
        InputError: Another process holds it, or it cannot be made.
    """
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"{url} cannot be written to ({reason_of(error)}): choose another folder.") from None
    with open(handle, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"{url} is being written by another run ({file.read().strip() or 'just started'}): "
                "wait until it ends, or choose another folder."
            ) from None
        file.truncate(0)
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        file.write(f"host {socket.gethostname()}, process {os.getpid()}, since {since}")
        file.flush()
        yield
