"""Folders below a folder of this machine, reached without following links.

A run's folder may be a link that its user made. A link inside it, such as `codes`, may be another user's, or come with
a folder from elsewhere: files would be written, replaced and deleted where it leads. The folders are opened one by one,
and files are named relative to the open folder, so that nothing can be put in their place in between.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from flowers_batch.errors import InputError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MODE = 0o775  # less the umask: others never get the right to write
_DESCRIPTORS = "/proc/self/fd"  # of Linux
_MAX_PATH_BYTES = 1024  # of macOS, `MAXPATHLEN`


def make_folder(path: str) -> None:
    """Make a folder, and those above it, unless they exist.

    Raises:
        OSError: It cannot be made.
    """
    if not os.path.isdir(path):
        if parent := os.path.dirname(path):
            make_folder(parent)
        with suppress(FileExistsError):  # made by another process meanwhile; if it is a file, opening it fails
            os.mkdir(path, _MODE)


@contextmanager
def open_subfolder(root: str, name: str, *, make: bool = False) -> Iterator[int]:
    """Give the descriptor of a folder below another one.

    Args:
        root: A folder; links in its name are followed.
        name: The folder's name below it; empty for `root` itself.
        make: Whether to make the folders that do not exist.

    Raises:
        InputError: One of the folders below `root` is a link.
        OSError: One of them does not exist, or cannot be opened or made.
    """
    try:
        handle = os.open(root, _FOLDER)
    except FileNotFoundError:
        if not make:
            raise
        make_folder(root)
        handle = os.open(root, _FOLDER)
    path = root
    try:
        for part in filter(None, name.split("/")):
            path = os.path.join(path, part)
            handle = _step_into(handle, part, path, root, make)
        yield handle
    finally:
        os.close(handle)


def path_of(folder: int) -> str:
    """Return a path of an open folder, for this process alone; on Linux it stays right if the folder is renamed."""
    if hasattr(fcntl, "F_GETPATH"):  # macOS, which has no /proc
        return os.fsdecode(fcntl.fcntl(folder, fcntl.F_GETPATH, bytes(_MAX_PATH_BYTES)).rstrip(b"\0"))
    return f"{_DESCRIPTORS}/{folder}"


def delete_file(root: str, name: str) -> None:
    """Delete a file below a folder, if there is one; of a link, the link."""
    parent, base = os.path.split(name)
    with suppress(FileNotFoundError, NotADirectoryError), open_subfolder(root, parent) as folder:
        os.unlink(base, dir_fd=folder)


def delete_tree(root: str, name: str) -> None:
    """Delete a folder below a folder, if there is one, with all that is in it; links in it are not followed."""
    parent, base = os.path.split(name)
    with suppress(FileNotFoundError), open_subfolder(root, name), open_subfolder(root, parent) as folder:
        shutil.rmtree(base, dir_fd=folder)


def delete_old_files(root: str, name: str, prefix: str, older_than: float) -> None:
    """Delete the files of a folder below a folder whose names begin so, if they are `older_than` seconds old."""
    with suppress(FileNotFoundError), open_subfolder(root, name) as folder, os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and not entry.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):  # another process deleted it
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime >= older_than:
                        os.unlink(entry.name, dir_fd=folder)


def _step_into(parent: int, part: str, path: str, root: str, make: bool) -> int:
    """Return the descriptor of a folder in an open one, which is closed."""
    try:
        try:
            folder = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        except FileNotFoundError:
            if not make:
                raise
            with suppress(FileExistsError):  # made by another process meanwhile
                os.mkdir(part, _MODE, dir_fd=parent)
            folder = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        if _is_link(part, parent):
            raise InputError(
                f"{path} is a link, which is not followed: put a folder in its place, or choose another folder; "
                f"{root} itself may be a link."
            ) from None
        raise OSError(error.errno, error.strerror, path) from None
    os.close(parent)
    return folder


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
