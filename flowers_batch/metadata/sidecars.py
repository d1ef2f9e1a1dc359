"""XMP sidecars of photos on this machine: their names, and what is written into them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from flowers_batch.metadata.packet import MAX_BYTES, MalformedXmpError
from flowers_batch.metadata.tags import Tag, with_tag
from flowers_batch.storage.beneath import READ_FLAGS, OutsideError, open_beneath
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.replacing import ChangedError, check_unchanged, replace_file, sweep_scratch_files

CREATED, CHANGED, DELETED, UNCHANGED = CHANGES = ("created", "changed", "deleted", "unchanged")
_SUFFIXES = (".xmp", ".XMP")
_TRIES = 3  # of a sidecar that is changed meanwhile: by another program, or under another name of its folder
_READABLE = 0o064  # by others than the owner, and writable by the group: of a photo's mode, what a sidecar gets


class SidecarError(Exception):
    """A sidecar cannot be read or written; the text says why, without its name.

    Attributes:
        kind: What is wrong: `malformed`, `missing` (the photo), `outside`, `not a file`, `too large`, `unreadable`,
            `changed` or `unwritable`.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class PhotoFile:
    """A photo's file.

    Attributes:
        root: The photos' folder: links below it are followed if they lead to a file below it. None: `path` is one that
            the user's list names, and all links are followed.
        path: The file, relative to the folder, or absolute.
    """

    root: bytes | None
    path: bytes

    @property
    def folder(self) -> PhotoFile:
        """Its folder."""
        return PhotoFile(self.root, os.path.dirname(self.path))


def sidecars_of(path: str) -> tuple[str, ...]:
    """Return the names that programs give the sidecar of a photo, in the order in which they look for them.

    They are `photo.jpg.xmp`, as darktable, digiKam and Immich write it, then `photo.xmp`, as Lightroom does, each with
    the suffix in small and in capital letters.

    Args:
        path: The photo's key.
    """
    stem = stem_of(path)
    return tuple(name for base in dict.fromkeys((path, stem)) for name in with_suffixes(base))


def with_suffixes(base: str) -> tuple[str, ...]:
    """Return a path with the suffixes of sidecars; new ones have the first."""
    return tuple(f"{base}{suffix}" for suffix in _SUFFIXES)


def stem_of(path: str) -> str:
    """Return a path without its last suffix."""
    folder, slash, name = path.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return f"{folder}{slash}{stem if dot and stem else name}"


def retag(photo: PhotoFile, names: Sequence[str], tag: Tag | None, *, write: bool = True) -> str:
    """Give a photo's sidecar a tag in place of the one that it has. The photo's file is not opened.

    Args:
        photo: The photo, which must exist.
        names: The names that the sidecar may have in the photo's folder, as `os.fsdecode` returns them: it is the first
            one that is there, else the first.
        tag: The tag; None takes the present one away, and the sidecar too, if this program made it and it holds
            nothing else.
        write: Whether to write; otherwise, what would be done is returned.

    Returns:
        `CREATED`, `CHANGED`, `DELETED` or `UNCHANGED`.

    Raises:
        SidecarError: The sidecar cannot be read or written, or the photo is missing; the sidecar is as it was.
    """
    with _open(photo.folder) as folder:
        for _ in range(_TRIES - 1):
            with suppress(ChangedError):
                return _retag(folder, photo, names, tag, write)
        try:
            return _retag(folder, photo, names, tag, write)
        except ChangedError as error:
            raise SidecarError("changed", str(error)) from None


def _retag(folder: int, photo: PhotoFile, names: Sequence[str], tag: Tag | None, write: bool) -> str:
    """Do it once; raise `ChangedError` if the sidecar is changed meanwhile."""
    name, content, status = _find(folder, names)
    try:
        new = with_tag(content, tag)
    except MalformedXmpError as error:
        raise SidecarError("malformed", str(error)) from None
    if new is content:
        return UNCHANGED
    mode = _mode_beside(folder, photo) if content is None else 0
    if write:
        _write(folder, name, new, status, mode)
    if new is None:
        return DELETED
    return CREATED if content is None else CHANGED


def exist(photo: PhotoFile, names: Sequence[str]) -> bool:
    """Return whether there is a file with one of some names beside a photo."""
    with _open(photo.folder) as folder:
        return any(_lstat(folder, name) for name in names)


def _lstat(folder: int, name: str) -> os.stat_result | None:
    with suppress(OSError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    return None


def sweep(folder: PhotoFile) -> None:
    """Delete what killed processes left in a folder of photos.

    Raises:
        SidecarError: It cannot be opened.
    """
    with _open(folder) as handle, suppress(OSError):
        sweep_scratch_files(handle)


@contextmanager
def _open(folder: PhotoFile) -> Iterator[int]:
    """Give the descriptor of a folder of photos."""
    root, path = folder.root, folder.path
    try:
        handle = open_beneath(root, path) if root is not None and path else os.open(path or root or b".", READ_FLAGS)
    except (FileNotFoundError, NotADirectoryError):
        raise _missing() from None
    except OutsideError:
        raise _outside() from None
    except (OSError, ValueError) as error:
        raise SidecarError("unreadable", f"its folder cannot be opened ({reason_of(error)})") from None
    try:
        yield handle
    finally:
        os.close(handle)


def _find(folder: int, names: Sequence[str]) -> tuple[str, bytes | None, os.stat_result | None]:
    """Return the name of a sidecar, its content and its status; the last two are None if there is none."""
    for name in names:
        try:
            handle = os.open(name, READ_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            if number == errno.ENAMETOOLONG:  # there can be none
                continue
            if number == errno.ELOOP:
                raise SidecarError("not a file", "it is a link, which is not followed") from None
            raise SidecarError("unreadable", f"it cannot be read ({reason_of(error)})") from None
        return name, *_content(handle)
    return names[0], None, None


def _content(handle: int) -> tuple[bytes, os.stat_result]:
    """Return the content and the status of an open sidecar, and close it."""
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise SidecarError("not a file", "it is not a regular file")
        with open(handle, "rb", closefd=False) as file:  # which refuses a folder with an error of its own
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SidecarError("unreadable", f"it cannot be read ({reason_of(error)})") from None
    finally:
        os.close(handle)
    if len(content) > MAX_BYTES:
        raise SidecarError("too large", f"it has more than {MAX_BYTES} bytes")
    return content, status


def _mode_beside(folder: int, photo: PhotoFile) -> int:
    """Return the permissions of a new sidecar: a photo that others cannot read has one that they cannot read."""
    try:
        status = os.stat(os.path.basename(photo.path), dir_fd=folder)
    except OSError:
        raise _missing() from None
    return 0o600 | status.st_mode & _READABLE


def _write(folder: int, name: str, content: bytes | None, old: os.stat_result | None, mode: int) -> None:
    try:
        if content is None:
            check_unchanged(folder, name, old)
            os.unlink(name, dir_fd=folder)
        else:
            replace_file(folder, name, content, old, mode)
    except ChangedError:
        raise
    except OSError as error:
        raise SidecarError("unwritable", f"it cannot be written ({reason_of(error)})") from None


def _missing() -> SidecarError:
    return SidecarError("missing", "the photo does not exist")


def _outside() -> SidecarError:
    return SidecarError("outside", "a link leads outside the photos' folder")
