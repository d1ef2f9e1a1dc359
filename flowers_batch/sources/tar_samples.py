"""Samples of a tar, as WebDataset has them: members whose names are equal up to their first dot.

`a/0001.jpg`, `a/0001.cls` and `a/0001.json` are one sample; `jpg`, `cls` and `json` are the endings of its members.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from tarfile import TarInfo
from typing import Generic, TypeVar

from flowers_batch.sources.containers import DISK_BUFFER_BYTES, STORE_BUFFER_BYTES
from flowers_batch.sources.images import is_image
from flowers_batch.sources.tar_links import member_path
from flowers_batch.sources.tars import members_of
from flowers_batch.storage.folder import Folder

T = TypeVar("T")
MAX_VALUE_BYTES = 1_000_000  # of a member that describes an image
_LINK = -1  # instead of where an image's bytes are
_ANY = b""  # instead of an image's name: a link to a folder gives images other names


class SampleValues(Generic[T]):
    """What one member of each sample of a tar says, for the images of the samples; one tar's values are in memory.

    Args:
        folder: The tar's folder.
        name: The tar.
        ending: Of these members, in lower case.
        interpret: Returns the value for the content of a member; None stands for more than `MAX_VALUE_BYTES`.

    Raises:
        InputError: The tar is damaged.
        OSError: It cannot be read.
    """

    def __init__(self, folder: Folder, name: str, ending: str, interpret: Callable[[bytes | None], T]):
        # A sample is its key, and its number among samples of that key.
        self._samples: dict[tuple[bytes, int], tuple[bytes, int]] = {}  # by name and offset of an image
        self._values: dict[tuple[bytes, int], T] = {}  # by sample
        seen = Counter[tuple[bytes, bytes]]()
        with closing(_Contents(folder, name)) as contents:
            for member in members_of(folder, name):
                path, key, own = _parts(member)
                if own != ending.encode() and not is_image(path):
                    continue
                sample = key, seen[key, own]  # a second member of one name belongs to the next sample of that name
                seen[key, own] += 1
                if is_image(path):
                    self._samples[path, member.offset_data if member.isreg() else _LINK] = sample
                    self._samples.setdefault((_ANY, member.offset_data), sample)
                elif member.isreg():
                    self._values[sample] = interpret(contents.read(member))

    def get(self, path: bytes, offset: int) -> T | None:
        """Return the value for an image; None if its sample has none.

        Args:
            path: Its name in the tar, which may end in `#2` where several have one name.
            offset: Where its bytes are.
        """
        name = path.rpartition(b"#")[0] or path
        for image in ((path, offset), (path, _LINK), (name, offset), (name, _LINK), (_ANY, offset)):
            if sample := self._samples.get(image):
                return self._values.get(sample)
        return None


def first_values(folder: Folder, name: str, members: int) -> Iterator[tuple[str, bytes]]:
    """Yield ending and content of members that describe images, of the first ones of a tar."""
    keys = {key for path, key, _ in map(_parts, islice(members_of(folder, name), members)) if is_image(path)}
    with closing(_Contents(folder, name)) as contents:
        for member in islice(members_of(folder, name), members):
            path, key, ending = _parts(member)
            if key in keys and member.isreg() and not is_image(path):
                yield ending.decode("utf-8", "replace"), contents.read(member) or b""


def has_ending(folder: Folder, name: str, ending: str) -> bool:
    """Return whether a tar has members of an ending, in lower case, that is not an image's."""
    parts = map(_parts, members_of(folder, name))
    return any(own == ending.encode() and not is_image(path) for path, _, own in parts)


class _Contents:
    """Reads members of a tar in their order."""

    def __init__(self, folder: Folder, name: str):
        self._file = io.BufferedReader(folder.open(name), DISK_BUFFER_BYTES if folder.is_local else STORE_BUFFER_BYTES)

    def read(self, member: TarInfo) -> bytes | None:
        """Return the content of a member that is a file; None if it is too large."""
        if member.size > MAX_VALUE_BYTES or member.issparse():
            return None
        self._file.seek(member.offset_data)
        return self._file.read(member.size)

    def close(self) -> None:
        self._file.close()


def _parts(member: TarInfo) -> tuple[bytes, bytes, bytes]:
    """Return a member's name, the key of its sample, and its ending in lower case, which is empty without a key."""
    path = member_path(member.name)
    folder, slash, name = path.rpartition(b"/")
    stem, _, ending = name.partition(b".")
    return path, (folder + slash + stem).removeprefix(b"./"), ending.lower() if stem else b""
