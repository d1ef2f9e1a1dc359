"""Small files replaced in folders of other people's files, so that a reader sees the old content or the new one.

The folder is open, so that nothing can be put in its place. Permissions and owner of a file that is replaced stay.
"""

from __future__ import annotations

import fcntl
import os
import stat
import uuid
from contextlib import suppress

from flowers_batch.storage.folder import SCRATCH

_SCRATCH = f"{SCRATCH}replacing-"  # is no scratch file of a run, which may be in the same folder
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ChangedError(OSError):
    """Another process has changed the file meanwhile."""


def replace_file(folder: int, name: str, content: bytes, old: os.stat_result | None, mode: int = 0o664) -> None:
    """Write a file of an open folder: into a scratch file, which is flushed to the disk and renamed.

    Args:
        folder: The folder's descriptor.
        name: The file's name in it; a link of this name is not followed.
        content: The file's content.
        old: The file as it was when it was read, None if there was none.
        mode: The permissions of a new file, less the umask.

    Raises:
        ChangedError: The file is not as it was.
        OSError: It cannot be written, or cannot have its owner.
    """
    scratch = f"{_SCRATCH}{uuid.uuid4().hex}"
    handle = os.open(scratch, _NEW, mode if old is None else 0o600, dir_fd=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            with suppress(OSError):  # a file system without locks, where what a killed process left stays
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(content)
            file.flush()
            if old is not None:
                _copy_attributes(folder, name, file.fileno(), old)
            os.fsync(file)
            check_unchanged(folder, name, old)
            try:
                os.rename(scratch, name, src_dir_fd=folder, dst_dir_fd=folder)
            except FileNotFoundError:  # somebody else swept it before it was locked
                raise _changed() from None
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(scratch, dir_fd=folder)
        raise


def check_unchanged(folder: int, name: str, old: os.stat_result | None) -> None:
    """Check that a file is as it was when it was read; None: that there is none.

    Raises:
        ChangedError: It is not.
    """
    try:
        now = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        now = None
    if _identity(now) != _identity(old):
        raise _changed()


def _changed() -> ChangedError:
    return ChangedError("another program has changed it meanwhile")


def sweep_scratch_files(folder: int) -> None:
    """Delete the scratch files that killed processes left in an open folder."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(_SCRATCH)]
    for name in names:
        with suppress(OSError):  # its process still has the lock; or it is another user's
            handle = os.open(name, _OLD, dir_fd=folder)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=folder)
            finally:
                os.close(handle)


def _copy_attributes(folder: int, name: str, target: int, old: os.stat_result) -> None:
    """Give an open file the owner, the access control list, other extended attributes and the mode of another one."""
    new = os.fstat(target)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        os.fchown(target, old.st_uid, old.st_gid)
    if hasattr(os, "listxattr"):
        source = os.open(name, _OLD, dir_fd=folder)
        try:
            with suppress(OSError):  # a file system without them, or one that only root may set
                for attribute in os.listxattr(source):
                    os.setxattr(target, attribute, os.getxattr(source, attribute))
        finally:
            os.close(source)
    os.fchmod(target, stat.S_IMODE(old.st_mode))


def _identity(status: os.stat_result | None) -> tuple[int, ...] | None:
    return status and (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
