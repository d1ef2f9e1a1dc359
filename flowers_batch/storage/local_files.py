"""Files of this machine: names, errors, and having them on the disk."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from flowers_batch.errors import first_line

_DETAILS = " error_info={"  # begins what Google's client knows of an error besides its sentence


def is_utf8(name: bytes) -> bool:
    """Return whether a file's name is UTF-8."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def reason_of(error: Exception) -> str:
    """Return why a file could not be read or written, without a full stop."""
    number = getattr(error, "errno", None)
    if number:
        return os.strerror(number).rstrip(".")
    return first_line(error).partition(_DETAILS)[0].rstrip(".")  # of a store


def check_is_file(path: str) -> None:
    """Refuse a device or a pipe, whose reader could wait for ever; what does not exist and folders pass.

    Raises:
        OSError: It is one, or a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # opening it raises one that says more
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError("it is not a regular file")


def fsync(path: str | os.PathLike[str]) -> None:
    """Flush a file's content, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def finish(path: str) -> None:
    """Flush a file's content to the disk, and take the right to write from users other than the owner and the group."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = stat.S_IMODE(os.fstat(handle).st_mode)
        if mode & stat.S_IWOTH:
            with suppress(PermissionError):  # a file system without modes
                os.fchmod(handle, mode & ~stat.S_IWOTH)
        os.fsync(handle)
    finally:
        os.close(handle)
