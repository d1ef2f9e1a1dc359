"""Tar files as a source of images, read in place."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from flowers_batch.errors import InputError, first_line
from flowers_batch.sources.containers import DISK_BUFFER_BYTES, STORE_BUFFER_BYTES, ContainerSource, open_shared
from flowers_batch.sources.reading import ReadError, check_size
from flowers_batch.storage.folder import Folder


@dataclass
class TarSource(ContainerSource):
    """Images in tars, as WebDataset has them: read in place, never unpacked; `path` is `tar!member`.

    A member's name is never used as a path. Members that are not images by their names are ignored.
    """

    def _members(self, name: str) -> Iterator[tuple[bytes, int, int | None]]:
        for member in _members_of(self.folder, name):
            path = member.name.encode("utf-8", "surrogateescape")
            if member.isreg() and self.left_out.takes(path, self.skipping.kind_within(path)):
                # A sparse member is not contiguous: its row fails.
                yield b"%b!%b" % (name.encode(), path), member.size, None if member.issparse() else member.offset_data

    def _read(self, name: str, changed: datetime, offset: int, size: int) -> bytes:
        check_size(size)
        content = open_shared(_as_it_is, self.folder, name, changed).read_at(size, offset)
        if len(content) < size:
            raise ReadError("unreadable", "The tar ends before the photo does: it was cut short since it was listed.")
        return content


def _as_it_is(file: pa.NativeFile, url: str) -> pa.NativeFile:
    return file


def _members_of(folder: Folder, name: str) -> Iterator[tarfile.TarInfo]:
    """Return all members of a tar, one in memory at a time.

    Raises:
        InputError: It is not a tar, or is incomplete: tarfile takes a broken header for the tar's end.
    """
    end = 0
    buffer_bytes = DISK_BUFFER_BYTES if folder.is_local else STORE_BUFFER_BYTES
    try:
        with closing(io.BufferedReader(folder.open(name), buffer_bytes)) as file:
            tar = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
            while member := tar.next():
                if member.size < 0 or tar.offset <= end:
                    raise tarfile.ReadError("a size is negative")
                end = tar.offset
                tar.members.clear()  # type: ignore[attr-defined]
                yield member
            end = file.seek(tar.offset)
            rest = file.read(tarfile.BLOCKSIZE)
            if not rest:
                raise tarfile.ReadError("the end-of-archive marker is missing")
            while rest:
                if rest.count(0) < len(rest):
                    raise tarfile.ReadError("no header is there")
                rest = file.read(STORE_BUFFER_BYTES)
    except Exception as error:  # tarfile raises many types for broken headers
        raise InputError(
            f"The tar {folder.url_of(name)} cannot be read from byte {end} on ({first_line(error)[:-1]}): "
            "restore it, or move it away."
        ) from None
