"""Opening files below a folder of this machine, wherever links lead, and while others change folders and links."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache

# O_NONBLOCK: a pipe that is named like a photo must not block; O_NOCTTY: a terminal must not become this process's.
READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# O_PATH: a folder that may be passed through need not be one that may be listed.
_FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_OPENAT2 = 437  # the number of the system call on all architectures: Linux 5.6 or later
_NO_SYMLINKS, _BENEATH = 0x04, 0x08  # RESOLVE_ flags in linux/openat2.h
_IS_A_LINK = (errno.ELOOP, errno.ENOTDIR)  # how a link is refused: as the last part of a path, and before that
_NO_OPENAT2 = (errno.ENOSYS, errno.EPERM)  # an older kernel, or a container that does not know the call


class OutsideError(OSError):
    """A path leads to a file outside the folder."""


def open_beneath(root: bytes, path: bytes) -> int:
    """Open a file below a folder for reading; links are followed if they lead to a file below the folder.

    A link is resolved first, and then its target is opened without following any link: one that is exchanged
    meanwhile makes the file fail, and never leads outside.

    Args:
        root: The folder, which may be a link itself.
        path: The file's path, relative to the folder, without `..`.

    Returns:
        A file descriptor; what it is open on need not be a regular file.

    Raises:
        OutsideError: The path leads outside the folder.
        OSError: It cannot be opened.
    """
    folder = os.open(root, _FOLDER_FLAGS)
    try:
        try:
            return open_without_links(folder, path)
        except OSError as error:
            if error.errno not in _IS_A_LINK:
                raise
        return open_without_links(folder, _resolved(root, path))
    finally:
        os.close(folder)


def lead_outside(root: bytes, paths: Iterable[bytes]) -> list[bool]:
    """Return whether each of some paths below a folder leads outside it, once links are followed; it opens nothing.

    Args:
        root: The folder, which may be a link itself.
        paths: Relative to the folder, without `..`.
    """
    base = os.path.realpath(root)
    prefix, folders, found = os.path.join(base, b""), dict[bytes, bytes](), list[bool]()
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:  # many photos share one
            folders[folder] = os.path.realpath(os.path.join(base, folder))
        target = os.path.join(folders[folder], name)
        if os.path.islink(target):
            target = os.path.realpath(target)
        found.append(not target.startswith(prefix))
    return found


def _resolved(root: bytes, path: bytes) -> bytes:
    """Return where a path below a folder leads, relative to the folder, without links."""
    folder = os.path.realpath(root)
    target = os.path.realpath(os.path.join(folder, path))
    prefix = os.path.join(folder, b"")
    if not target.startswith(prefix):
        raise OutsideError(errno.EXDEV, "It leads outside the folder")
    return target.removeprefix(prefix)


def open_without_links(folder: int, path: bytes) -> int:
    """Open a file below an open folder; fail where a part of its path is a link.

    Raises:
        OSError: It cannot be opened; `ELOOP` or `ENOTDIR` if a part of its path is a link.
    """
    if b"\0" in path or not {b"", b".."}.isdisjoint(path.split(b"/")):
        raise OutsideError(errno.EXDEV, "It leads outside the folder")
    openat2 = _openat2()
    if openat2:
        try:
            return openat2(folder, path)
        except OSError as error:
            if error.errno not in _NO_OPENAT2:
                raise
    return _walk_without_links(folder, path)


def _walk_without_links(folder: int, path: bytes) -> int:
    """Open a file as `open_without_links` does, one part of its path after the other, as all systems can."""
    *folders, name = path.split(b"/")
    here = os.dup(folder)
    try:
        for part in folders:
            following = os.open(part, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = following
        return os.open(name, READ_FLAGS | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@lru_cache(maxsize=1)
def _openat2() -> Callable[[int, bytes], int] | None:
    """Return the system call that opens a file below an open folder without following links; None elsewhere."""
    if sys.platform != "linux":
        return None
    with suppress(AttributeError, OSError):
        syscall = ctypes.CDLL(None, use_errno=True).syscall
        syscall.restype = ctypes.c_long
        how = _OpenHow(READ_FLAGS, 0, _BENEATH | _NO_SYMLINKS)

        def openat2(folder: int, path: bytes) -> int:
            arguments = ctypes.c_char_p(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
            while True:
                handle = syscall(ctypes.c_long(_OPENAT2), ctypes.c_int(folder), *arguments)
                if handle >= 0:
                    return int(handle)
                number = ctypes.get_errno()
                if number != errno.EINTR:
                    raise OSError(number, os.strerror(number))

        return openat2
    return None
