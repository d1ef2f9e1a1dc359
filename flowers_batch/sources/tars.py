"""Tar files as a source of images, read in place."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from tarfile import BLOCKSIZE

import pyarrow as pa

from flowers_batch.errors import InputError
from flowers_batch.sources.containers import DISK_BUFFER_BYTES, STORE_BUFFER_BYTES, ContainerSource, open_shared
from flowers_batch.sources.reading import ReadError, check_size
from flowers_batch.sources.tar_headers import Tar
from flowers_batch.sources.tar_links import NO_BYTES, Photo, linked_photos, photo_of
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.io_errors import raise_io_error
from flowers_batch.storage.local_files import reason_of

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\3\4")  # gzip, bzip2, xz, zstd, zip


@dataclass
class TarSource(ContainerSource):
    """Images in tars, as WebDataset has them: read in place, never unpacked; `path` is `tar!member`.

    A member's name is never used as a path. Members that are not images by their names are ignored. Links are followed
    within their tar; one that leads to no file of the tar is a row that fails.
    """

    def _members(self, name: str) -> Iterator[tuple[bytes, int, int | None]]:
        for photo in self._photos(name):
            yield b"%b!%b" % (name.encode(), photo.path), photo.size, photo.offset

    def _photos(self, name: str) -> Iterator[Photo]:
        """Yield the photos of a tar, and after them those that its links lead to."""
        has_links = False
        for member in members_of(self.folder, name):
            if member.issym() or member.islnk():
                has_links = True
            elif not member.isdir():
                photo = photo_of(member)
                if self.left_out.takes(photo.path, self.skipping.kind_within(photo.path)):
                    yield photo
        if has_links:
            yield from linked_photos(name.encode(), members_of(self.folder, name), self.skipping, self.left_out)

    def _read(self, name: str, changed: datetime, offset: int, size: int) -> bytes:
        if offset == NO_BYTES:
            raise ReadError("missing", "The tar has no bytes for it: it is no file, or a link to none in the tar.")
        if size < 0:  # in a manifest that was tampered with
            raise ReadError("unreadable", "Its size in the tar is negative.")
        check_size(size)
        file = open_shared(_as_it_is, self.folder, name, changed)
        content = file.read_at(BLOCKSIZE + size, offset - BLOCKSIZE) if offset >= BLOCKSIZE else None
        # A manifest may name any place of the tar: the block before a member is its header.
        if content is None or _size_in(content[:BLOCKSIZE]) not in (None, size):
            raise ReadError("unreadable", "The tar has no photo of its size where it was listed: it has changed.")
        if len(content) < BLOCKSIZE + size:
            raise ReadError("unreadable", "The tar ends before the photo does: it was cut short since it was listed.")
        return content[BLOCKSIZE:]


def _size_in(header: bytes) -> int | None:
    """Return the size in a member's header, -1 if it is no header; None if it is cut short."""
    if len(header) < BLOCKSIZE:
        return None
    try:
        size: int = tarfile.nti(header[124:136])  # type: ignore[attr-defined]
    except tarfile.HeaderError:
        return -1
    return size


def _as_it_is(file: pa.NativeFile, url: str) -> pa.NativeFile:
    return file


def members_of(folder: Folder, name: str) -> Iterator[tarfile.TarInfo]:
    """Return all members of a tar, one in memory at a time.

    Raises:
        InputError: It is not a tar, or is incomplete: tarfile takes a broken header for the tar's end.
        RunError: The disk or the store fails.
    """
    end = 0
    buffer_bytes = DISK_BUFFER_BYTES if folder.is_local else STORE_BUFFER_BYTES
    try:
        with closing(io.BufferedReader(folder.open(name), buffer_bytes)) as file:
            tar = Tar(fileobj=file, encoding="utf-8", errors="surrogateescape")
            while member := tar.next():
                if member.size < 0 or tar.offset <= end:
                    raise tarfile.ReadError("a size is negative")
                end = tar.offset
                tar.members.clear()  # type: ignore[attr-defined]
                yield member
            end = file.seek(tar.offset)
            rest = file.read(BLOCKSIZE)
            if not rest:
                raise tarfile.ReadError("the end-of-archive marker is missing")
            while rest:
                if rest.count(0) < len(rest):
                    raise tarfile.ReadError("no header is there")
                rest = file.read(STORE_BUFFER_BYTES)
    except Exception as error:  # tarfile raises many types for broken headers
        raise_io_error(folder.url_of(name), error)
        if end == 0 and _is_compressed(folder, name):
            raise InputError(
                f"The tar {folder.url_of(name)} is compressed, so that photos cannot be read at random: decompress it "
                "first."
            ) from None
        raise InputError(
            f"The tar {folder.url_of(name)} cannot be read from byte {end} on ({reason_of(error)}): "
            "restore it, or move it away."
        ) from None


def _is_compressed(folder: Folder, name: str) -> bool:
    with closing(folder.open(name)) as file:
        return file.read(6).startswith(_COMPRESSED)
