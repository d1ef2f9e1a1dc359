"""Reading an image's bytes: what is retried, what becomes a failed row, and what ends the run."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import pyarrow as pa

from flowers_batch.errors import RunError, first_line
from flowers_batch.storage.beneath import READ_FLAGS, OutsideError, open_beneath
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.objects import read_object
from flowers_batch.storage.retries import with_retries
from flowers_batch.storage.stores import has_odd_parts
from flowers_batch.text import visible

IsEnough = Callable[[bytes], bool]
HEAD_BYTES = 1 << 20  # of a file, which hold a JPEG's header
_READ_BYTES = 1 << 20
ODD_KEY = "has a part that is empty, `.` or `..`, and cannot be opened: copy the object to another key."
MAX_BYTES = 1 << 30  # no photo is larger; a larger file would fill an actor's memory before it is decoded


class ReadError(Exception):
    """An image's bytes cannot be read.

    Attributes:
        reason: `missing`, `unreadable` or `too_large`.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def check_size(size: int) -> None:
    """Refuse a file that is too large for a photo.

    Raises:
        ReadError: It has more than `MAX_BYTES`.
    """
    if size > MAX_BYTES:
        raise ReadError("too_large", f"The file has {size} bytes; {MAX_BYTES} are allowed.")


def read_bytes(root: Folder, read: Callable[[], bytes]) -> bytes:
    """Return an image's bytes, read with retries.

    Args:
        root: The folder that contains the image: if that is missing, the run ends, instead of the image failing.
        read: Reads once.

    Raises:
        ReadError: It is not there, is too large, or cannot be read.
        RunError: The root no longer exists.
    """
    try:
        return with_retries(read)
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a NUL in a name; pyarrow's broken files
        stalls = isinstance(error, TimeoutError) and not root.is_local  # it would stall again, which proves nothing
        if isinstance(error, OSError) and not stalls and root.is_missing():
            raise RunError(
                f"The folder {root.url} no longer exists, is empty, or cannot be listed: mount it again, and run the "
                "same command again."
            ) from None
        if isinstance(error, FileNotFoundError):
            raise ReadError("missing", "The file no longer exists.") from None
        message = f"{error.strerror}." if isinstance(error, OSError) and error.strerror else first_line(error)
        raise ReadError("unreadable", f"The file cannot be read: {message}") from None


def read_disk(path: bytes, is_enough: IsEnough | None = None) -> bytes:
    """Return the bytes of a file on this machine, read once.

    Args:
        path: Where it is.
        is_enough: Whether its first `HEAD_BYTES` are all that is returned; None: they never are.

    Raises:
        OSError: It does not exist, or cannot be read.
        ReadError: It is not a regular file, or is too large.
    """
    return _read_all(os.open(path, READ_FLAGS), is_enough)


def read_beneath(root: bytes, path: bytes, is_enough: IsEnough | None = None) -> bytes:
    """Return the bytes of a file below a folder on this machine, read once; no link leads outside the folder.

    Args:
        root: The folder.
        path: Where the file is in it.
        is_enough: As for `read_disk`.

    Raises:
        OSError: It does not exist, or cannot be read.
        ReadError: A link leads outside the folder, it is not a regular file, or is too large.
    """
    try:
        handle = open_beneath(root, path)
    except OutsideError:
        raise ReadError("unreadable", "It is a link to a file outside the photos' folder.") from None
    return _read_all(handle, is_enough)


def _read_all(handle: int, is_enough: IsEnough | None) -> bytes:
    """Return the bytes of an open file, and close it."""
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ReadError("unreadable", "It is not a regular file.")
        if is_enough and status.st_size > HEAD_BYTES:
            if is_enough(head := os.read(handle, HEAD_BYTES)):
                return head
            os.lseek(handle, 0, os.SEEK_SET)
        check_size(status.st_size)
        # A byte more than it has, so that its end is seen at once; a file object would ask the kernel three times more.
        parts = [os.read(handle, status.st_size + 1)]
        if len(parts[0]) != status.st_size:  # it has grown, or its file system reports no sizes or reads in parts
            while more := os.read(handle, _READ_BYTES):
                parts.append(more)
                check_size(sum(map(len, parts)))
        return b"".join(parts)
    finally:
        os.close(handle)


def read_store(folder: Folder, name: str) -> bytes:
    """Return the bytes of a file of any folder, read once.

    Raises:
        OSError: It does not exist, or cannot be read; `TimeoutError` if the store stalls.
        ReadError: It is too large, or its key is one that pyarrow does not open.
    """
    if folder.is_local:
        return read_disk(os.fsencode(folder.at(name)))
    if has_odd_parts(name):  # before it is asked for: `..` must not lead to another key
        raise ReadError("unreadable", f"The key {visible(name)} {ODD_KEY}")
    return read_object(folder, name, check_size)
