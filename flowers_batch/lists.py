"""Lists of paths as a source of images: text, CSV or Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from flowers_batch.config import InputError, first_line
from flowers_batch.reading import (
    EPOCH,
    PATH,
    ROWS_AT_ONCE,
    Image,
    ReadError,
    on_disk,
    path_bytes,
    path_text,
    read_bytes,
    read_disk,
    read_store,
)
from flowers_batch.sorting import in_order, microseconds, time_of
from flowers_batch.storage import Folder, open_folder, persistently, without_credentials

_SIZES, _TIME = ("bytes", "size"), "mtime"  # columns that a list may have besides its paths
_URL = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://")
_BUFFER_BYTES = 1 << 20
_Entry = tuple[bytes, int | None, int | None]  # key, bytes, microseconds of mtime


@dataclass
class ListSource:
    """All images that lists name, whatever their names end in.

    An entry is an absolute path, a URL, or relative to `root`. An entry at a URL has no size and no time unless the
    list tells them, so that a change of it is not noticed.

    Attributes:
        folder: Where the lists lie.
        name: The list's name, or a pattern of names.
        root: What relative entries are relative to, and what entries below it are keyed by; None: `folder`, and
            entries keep their names.
        ignored: None ever is.
        repeated: Entries that stood there before, counted while listing.
    """

    folder: Folder
    name: str
    root: str | None = None
    ignored: int = field(default=0, init=False)
    repeated: int = field(default=0, init=False)
    in_path_order: ClassVar[bool] = True
    found_by_path: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._base = open_folder(self.root) if self.root else self.folder
        self.root = self._base.url if self.root else None  # absolute, for processes that run elsewhere
        base, _, self._options = self._base.url.partition("?") if "://" in self._base.url else (self._base.url, "", "")
        # What entries below the root begin and may end with.
        self._prefix = os.fsencode(f"{base.rstrip('/')}/") if self.root else b""
        self._suffix = f"?{self._options}".encode() if self.root and self._options else b""

    @property
    def url(self) -> str:
        """The list's absolute path, or its URL."""
        return self.folder.url_of(self.name)

    def images(self) -> Iterator[Image]:
        """Lists the images in the order of their paths' bytes; lists in another order are sorted outside memory.

        Raises:
            InputError: A list cannot be read, or has an entry without a path.
        """
        self.repeated = 0
        is_sorted = all(before[0] <= after[0] for before, after in pairwise(self._entries()))
        before = None
        for key, size, changed in self._entries() if is_sorted else in_order(self._entries()):
            if key == before:
                self.repeated += 1
                continue
            before = key
            yield self._image(path_text(key), size, changed)

    def _image(self, path: str, size: int | None, changed: int | None) -> Image:
        where = self._local(path_bytes(path))
        if where is not None and (size is None or changed is None):
            return on_disk(path, where)
        return Image(path, size or 0, EPOCH if changed is None else time_of(changed))

    def _local(self, path: bytes) -> bytes | None:
        """The file on this machine that an entry names; None for one in a store."""
        if _URL.match(path) or not (self._base.is_local or path.startswith(b"/")):
            return None
        return os.path.join(os.fsencode(self._base.path), path)  # an absolute path stays as it is

    def read(self, image: Image) -> bytes:
        """Reads an image's bytes.

        Raises:
            ReadError: It is not there, is no regular file, is too large, or cannot be read.
            RunError: The folder of relative entries is not there any more.
        """
        return read_bytes(self._base, lambda: self._read(path_bytes(image.path)))

    def _read(self, path: bytes) -> bytes:
        where = self._local(path)
        return read_store(*self._in_store(os.fsdecode(path))) if where is None else read_disk(where)

    def _in_store(self, path: str) -> tuple[Folder, str]:
        """The folder that an entry's file system begins with, and the entry's name in it."""
        if not _URL.match(os.fsencode(path)):
            return self._base, path
        base, _, options = path.partition("?")
        scheme, _, rest = base.partition("://")
        bucket, _, key = rest.partition("/")
        if not options and self._base.url.startswith(f"{scheme}://"):
            options = self._options
        try:
            return _bucket(f"{scheme}://{bucket}/?{options}"), key
        except InputError as error:
            raise ReadError("unreadable", str(error)) from None

    def _entries(self) -> Iterator[_Entry]:
        """Keys, sizes and times as the lists tell them, in their order."""
        for name in self.folder.matching(self.name):
            url = self.folder.url_of(name)
            rows = _READERS[name.rpartition(".")[2].lower()]
            try:
                with closing(persistently(lambda name=name: self.folder.open(name))) as file:  # type: ignore[misc]
                    for path, size, changed in rows(file, url):
                        yield self._key(path), size, changed
            except (OSError, ValueError, csv.Error, pa.ArrowException) as error:  # ValueError: no UTF-8
                raise InputError(f"The list {url} cannot be read: {first_line(error)}") from None

    def _key(self, path: bytes) -> bytes:
        path = path_bytes(path_text(path))  # a list may hold what another run's `path` column did
        if _URL.match(path):
            path = os.fsencode(without_credentials(os.fsdecode(path))).removesuffix(self._suffix)
            if b"?" in path:  # of another store than the root
                return path
        return path.removeprefix(self._prefix)


@lru_cache(maxsize=64)
def _bucket(url: str) -> Folder:
    return open_folder(url)


def _of_text(file: pa.NativeFile, url: str) -> Iterator[_Entry]:
    lines = io.BufferedReader(file, _BUFFER_BYTES)
    if lines.peek(2).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"The list {url} is UTF-16: save it as UTF-8.")
    if lines.peek(3).startswith(codecs.BOM_UTF8):
        lines.read(3)
    for line in lines:
        if line.strip():
            yield line.rstrip(b"\r\n"), None, None


def _of_csv(file: pa.NativeFile, url: str) -> Iterator[_Entry]:
    text = io.TextIOWrapper(io.BufferedReader(file, _BUFFER_BYTES), "utf-8-sig", "surrogateescape", newline="")
    reader = csv.DictReader(text)
    _check_columns(reader.fieldnames or (), url)
    return _of_rows(reader, url)


def _of_parquet(file: pa.NativeFile, url: str) -> Iterator[_Entry]:
    table = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    names = table.schema_arrow.names
    _check_columns(names, url)
    batches = table.iter_batches(ROWS_AT_ONCE, columns=[name for name in (PATH, *_SIZES, _TIME) if name in names])
    return _of_rows((row for batch in batches for row in batch.to_pylist()), url)


_READERS = {"txt": _of_text, "csv": _of_csv, "parquet": _of_parquet}


def _check_columns(names: Iterable[str], url: str) -> None:
    if PATH not in names:
        raise InputError(f"The list {url} has no column `{PATH}`: give that name to the column of the paths.")


def _of_rows(rows: Iterable[dict[str, Any]], url: str) -> Iterator[_Entry]:
    for number, row in enumerate(rows, 1):
        path = row[PATH]
        if not isinstance(path, str) or not path:
            raise InputError(f"Row {number} of the list {url} has no path: fill it in, or take the row out.")
        try:
            sizes = [int(row[name]) for name in _SIZES if row.get(name) not in (None, "")]
            changed = _moment(row.get(_TIME))
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(
                f"Row {number} of the list {url} cannot be understood ({first_line(error)[:-1]}): give sizes in bytes, "
                "and times as ISO 8601."
            ) from None
        yield path.encode("utf-8", "surrogateescape"), sizes[0] if sizes else None, changed


def _moment(value: object) -> int | None:
    if value in (None, ""):
        return None
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(time, datetime):
        raise TypeError(f"{value!r} is no time.")
    return microseconds(time if time.tzinfo else time.replace(tzinfo=UTC))
