"""Files with known names, opened for writing without following what another user may have put in their place."""

from __future__ import annotations

import errno
import os
import stat

from flowers_batch.errors import InputError

_REMEDY = "delete it, or choose another folder"
_NO_FILE = {errno.ENXIO, errno.ENODEV, errno.EISDIR}  # from opening a socket, a FIFO, a device or a folder


def open_own_file(path: str | os.PathLike[str], flags: int, mode: int = 0o664, remedy: str = _REMEDY) -> int:
    """Open a file for writing, if its name leads to a regular file that has no other name.

    Whoever can write to a folder can put a link under a name that a run is about to write, so that another file of the
    user is changed, or a FIFO, on which the run would wait for ever. The checks act on the file that was opened; only
    then it is truncated, if `flags` has `O_TRUNC`.

    Args:
        path: The file. Links in the names of its folders are followed.
        flags: As for `os.open`, such as `os.O_RDWR | os.O_CREAT`.
        mode: As for `os.open`. Other users than the owner and the group never get the right to write.
        remedy: What to do about a file that is refused.

    Returns:
        Its file descriptor, which child processes do not inherit.

    Raises:
        InputError: It is a link, has several names, or is no regular file.
        OSError: It cannot be opened.
    """
    careful = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, careful, mode & ~stat.S_IWOTH)
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):
            raise _refusal(path, "is a link, which is not followed", remedy) from None
        if error.errno in _NO_FILE:
            raise _refusal(path, "is not a regular file", remedy) from None
        raise
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _refusal(path, "is not a regular file", remedy)
        if status.st_nlink > 1:
            raise _refusal(path, f"has {status.st_nlink} names (hard links)", remedy)
        if flags & os.O_TRUNC:
            os.ftruncate(handle, 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _refusal(path: str | os.PathLike[str], why: str, remedy: str) -> InputError:
    return InputError(f"{os.fspath(path)} cannot be written, since it {why}: {remedy}.")
