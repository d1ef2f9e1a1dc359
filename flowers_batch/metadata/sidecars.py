"""XMP sidecars of photos on this machine: their names, and reading them."""

from __future__ import annotations

import os
import stat

from flowers_batch.metadata.packet import MAX_BYTES
from flowers_batch.storage.beneath import READ_FLAGS, OutsideError, open_beneath
from flowers_batch.storage.local_files import reason_of

_SUFFIXES = (".xmp", ".XMP")


class SidecarError(Exception):
    """A sidecar cannot be read or written; the text is one sentence without its name."""


def sidecars_of(path: str) -> tuple[str, ...]:
    """Return the names that programs give the sidecar of a photo, in the order in which they look for them.

    They are `photo.jpg.xmp`, as darktable, digiKam and Immich write it, then `photo.xmp`, as Lightroom does, each with
    the suffix in small and in capital letters.

    Args:
        path: The photo's key.
    """
    stem = stem_of(path)
    return tuple(f"{base}{suffix}" for base in ((path,) if stem == path else (path, stem)) for suffix in _SUFFIXES)


def stem_of(path: str) -> str:
    """Return a path without its last suffix."""
    folder, slash, name = path.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return f"{folder}{slash}{stem if dot and stem else name}"


def read_sidecar(root: bytes | None, path: bytes) -> bytes | None:
    """Return a sidecar's content; None if there is no such file.

    Args:
        root: The photos' folder: links in `path` are followed if they lead to a file below it. None: `path` is one that
            the user's list names, and links are followed.
        path: The sidecar, relative to the folder, or absolute.

    Raises:
        SidecarError: It leads outside the folder, is not a regular file, is too large, or cannot be read.
    """
    try:
        return read_open_sidecar(os.open(path, READ_FLAGS) if root is None else open_beneath(root, path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OutsideError:
        raise SidecarError("it is a link to a file outside the photos' folder") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise SidecarError(f"it cannot be read ({reason_of(error)})") from None


def read_open_sidecar(handle: int) -> bytes:
    """Return the content of an open sidecar, and close it.

    Raises:
        SidecarError: It is not a regular file, or is too large.
        OSError: It cannot be read.
    """
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SidecarError("it is not a regular file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise SidecarError(f"it has more than {MAX_BYTES} bytes")
    return content
