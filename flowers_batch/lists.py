"""Lists of paths as a source of images: text, CSV or Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowers_batch.config import InputError, first_line
from flowers_batch.reading import (
    EPOCH,
    IMAGES,
    PATH,
    ROWS_AT_ONCE,
    TIME,
    Image,
    ReadError,
    on_disk,
    path_bytes,
    path_text,
    paths_bytes,
    paths_text,
    read_bytes,
    read_disk,
    read_store,
)
from flowers_batch.sorting import are_in_path_order, batches_in_order, without_repeats
from flowers_batch.storage import NOT_UTF8, Folder, open_folder, persistently, without_credentials

_SIZES, _TIME = ("bytes", "size"), "mtime"  # columns that a list may have besides its paths
_URL = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://")
_BUFFER_BYTES = 1 << 20
_COLUMN_ROWS = 16384  # read from a Parquet file as columns
_ENTRIES = pa.schema([pa.field(PATH, pa.string()), pa.field("bytes", pa.int64()), pa.field(_TIME, TIME)])
_FIRST, _LAST = (pa.scalar(time.replace(tzinfo=UTC), TIME).value for time in (datetime.min, datetime.max))
_MOST_BYTES = 2**63 - 1  # of a size, in the manifest's column


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

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Lists the images in the order of their paths' bytes; lists in another order are sorted outside memory.

        Yields:
            Batches with the columns `IMAGES`.

        Raises:
            InputError: A list cannot be read, or has an entry without a path.
        """
        self.repeated = 0
        entries = self._entries() if are_in_path_order(self._entries()) else _sorted(self._entries())
        for batch, repeated in without_repeats(entries):
            self.repeated += repeated
            yield self._images(batch)

    def _images(self, entries: pa.RecordBatch) -> pa.RecordBatch:
        """Entries with the sizes and times that the list tells, else with those of files on this machine."""
        paths, sizes, times = entries.columns
        untold = pc.or_(sizes.is_null(), times.is_null())
        if untold.true_count:
            files = [(path, self._local(path_bytes(path))) for path in paths.filter(untold).to_pylist()]
            found = [on_disk(path, where) for path, where in files if where is not None]
            is_local = pa.array([where is not None for _, where in files])
            untold = pc.replace_with_mask(untold, untold, is_local)
            sizes = pc.replace_with_mask(sizes, untold, pa.array([image.bytes for image in found], pa.int64()))
            times = pc.replace_with_mask(times, untold, pa.array([image.mtime for image in found], TIME))
        nowhere = [pa.nulls(len(entries), IMAGES.field(name).type) for name in ("source", "offset")]
        columns = [paths, *nowhere, sizes.fill_null(0), times.fill_null(pa.scalar(EPOCH, TIME))]
        return pa.RecordBatch.from_arrays(columns, schema=IMAGES)

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

    def _entries(self) -> Iterator[pa.RecordBatch]:
        """Keys, sizes and times as the lists tell them, in their order."""
        for name in self.folder.matching(self.name):
            url = self.folder.url_of(name)
            read = _READERS[name.rpartition(".")[2].lower()]
            try:
                with closing(persistently(lambda name=name: self.folder.open(name))) as file:  # type: ignore[misc]
                    for batch in read(file, url):
                        yield batch.set_column(0, _ENTRIES.field(0), self._keys(batch[PATH]))
            # ValueError: no UTF-8; OverflowError: a time beyond the year 9999.
            except (OSError, ValueError, OverflowError, csv.Error, pa.ArrowException) as error:
                raise InputError(f"The list {url} cannot be read: {first_line(error)}") from None

    def _keys(self, paths: pa.Array) -> pa.Array:
        """`_key` of each entry: for most of them it is the path, less the root."""
        keys = paths
        if self._prefix:
            rest = pc.binary_replace_slice(paths, 0, len(self._prefix), "")
            keys = pc.if_else(pc.starts_with(paths, os.fsdecode(self._prefix)), rest, paths)
        odd = pc.or_(pc.match_substring(paths, "?"), pc.match_substring(paths, "@"))  # options, and credentials
        odd = pc.or_(odd, pc.starts_with(paths, NOT_UTF8))
        if not odd.true_count:
            return keys
        found = [path_text(self._key(path_bytes(path))) for path in paths.filter(odd).to_pylist()]
        return pc.replace_with_mask(keys, odd, pa.array(found, pa.string()))

    def _key(self, path: bytes) -> bytes:
        if _URL.match(path):
            path = os.fsencode(without_credentials(os.fsdecode(path))).removesuffix(self._suffix)
            if b"?" in path:  # of another store than the root
                return path
        return path.removeprefix(self._prefix)


@lru_cache(maxsize=64)
def _bucket(url: str) -> Folder:
    return open_folder(url)


def _sorted(entries: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Entries in the order of their keys' bytes; those with the same key in that of sizes and times, none first."""
    raw = pa.field(PATH, pa.binary())
    as_bytes = (batch.set_column(0, raw, paths_bytes(batch[PATH])) for batch in entries)
    for batch in batches_in_order(as_bytes):
        yield batch.set_column(0, _ENTRIES.field(0), paths_text(batch[PATH]))


def _of_text(file: pa.NativeFile, url: str) -> Iterator[pa.RecordBatch]:
    lines = io.BufferedReader(file, _BUFFER_BYTES)
    if lines.peek(2).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"The list {url} is UTF-16: save it as UTF-8.")
    if lines.peek(3).startswith(codecs.BOM_UTF8):
        lines.read(3)
    while block := lines.readlines(_BUFFER_BYTES):
        names = [line.rstrip(b"\r\n") for line in block if line.strip()]
        yield _batch(paths_text(pa.array(names, pa.binary())))


def _of_csv(file: pa.NativeFile, url: str) -> Iterator[pa.RecordBatch]:
    text = io.TextIOWrapper(io.BufferedReader(file, _BUFFER_BYTES), "utf-8-sig", "surrogateescape", newline="")
    rows = csv.reader(text)
    names = next(rows, [])
    _check_columns(names, url)
    places = {name: place for place, name in enumerate(names) if name in (PATH, *_SIZES, _TIME)}
    filled = filter(None, rows)  # blank lines are none
    first = 1
    while chunk := list(islice(filled, ROWS_AT_ONCE)):
        columns = {
            name: _texts([row[place] if place < len(row) else None for row in chunk]) for name, place in places.items()
        }
        yield _told(columns, first, url)
        first += len(chunk)


def _texts(values: list[str | None]) -> pa.Array:
    """Fields of a CSV file, whose bytes that are no UTF-8 are surrogates."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        raw = [value if value is None else value.encode("utf-8", "surrogateescape") for value in values]
        return paths_text(pa.array(raw, pa.binary()))


def _of_parquet(file: pa.NativeFile, url: str) -> Iterator[pa.RecordBatch]:
    table = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    names = table.schema_arrow.names
    _check_columns(names, url)
    first = 1
    for rows in table.iter_batches(_COLUMN_ROWS, columns=[name for name in (PATH, *_SIZES, _TIME) if name in names]):
        yield _told(dict(zip(rows.schema.names, rows.columns, strict=True)), first, url)
        first += len(rows)


_READERS = {"txt": _of_text, "csv": _of_csv, "parquet": _of_parquet}


def _check_columns(names: Iterable[str], url: str) -> None:
    if PATH not in names:
        raise InputError(f"The list {url} has no column `{PATH}`: give that name to the column of the paths.")


def _batch(paths: pa.Array, sizes: pa.Array | None = None, times: pa.Array | None = None) -> pa.RecordBatch:
    """Entries; what is None is told of none of them."""
    columns = zip((paths, sizes, times), _ENTRIES.types, strict=True)
    filled = [pa.nulls(len(paths), type_) if column is None else column for column, type_ in columns]
    return pa.RecordBatch.from_arrays(filled, schema=_ENTRIES)


def _told(columns: Mapping[str, pa.Array], first: int, url: str) -> pa.RecordBatch:
    """What rows of a list tell; the number of the first is `first`.

    Raises:
        InputError: A row has no path, or has a size or time that is none.
    """
    try:
        paths = _paths(columns[PATH])
        sizes = [_whole_numbers(columns[name]) for name in _SIZES if name in columns]
        times = _times(columns[_TIME]) if _TIME in columns else None
        return _batch(paths, pc.coalesce(*sizes) if sizes else None, times)
    except pa.ArrowException:  # an unusual row is among them, or a wrong one
        names = list(columns)
        values = zip(*(column.to_pylist() for column in columns.values()), strict=True)
        return _told_row_by_row((dict(zip(names, row, strict=True)) for row in values), first, url)


def _paths(column: pa.Array) -> pa.Array:
    paths = _text(column)
    if paths is None or paths.null_count or pc.any(pc.equal(paths, "")).as_py():
        raise pa.ArrowInvalid("a path is missing")
    paths.validate(full=True)
    return paths


def _whole_numbers(column: pa.Array) -> pa.Array:
    text = _text(column)
    if text is not None:
        column = pc.if_else(pc.equal(text, ""), None, text)
        if not pc.all(pc.ascii_is_decimal(column)).as_py():  # Arrow would take 0x10 for a number
            raise pa.ArrowInvalid("a number is written in another way")
    elif not pa.types.is_integer(column.type):
        raise pa.ArrowInvalid("it is no column of whole numbers")
    return column.cast(pa.int64())


def _times(column: pa.Array) -> pa.Array:
    text = _text(column)
    if text is not None:
        column = pc.if_else(pc.equal(text, ""), None, text)
        try:
            times = column.cast(TIME)
        except pa.ArrowInvalid:  # one has no zone; with some of both kinds, this fails too
            times = column.cast(pa.timestamp("us")).cast(TIME)
    elif pa.types.is_timestamp(column.type):
        times = column.cast(TIME)
    else:
        raise pa.ArrowInvalid("it is no column of times")
    first, last = pc.min_max(times.cast(pa.int64())).as_py().values()
    if first is not None and not _FIRST <= first <= last <= _LAST:
        raise pa.ArrowInvalid("a time is beyond what Python knows")
    return times


def _text(column: pa.Array) -> pa.Array | None:
    """A column of text as strings; None for one of anything else."""
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    return column.cast(pa.string()) if is_text else None


def _told_row_by_row(rows: Iterable[dict[str, Any]], first: int, url: str) -> pa.RecordBatch:
    entries: list[tuple[str, int | None, datetime | None]] = []
    for number, row in enumerate(rows, first):
        path = row[PATH]
        if not isinstance(path, str) or not path:
            raise InputError(f"Row {number} of the list {url} has no path: fill it in, or take the row out.")
        try:
            sizes = [_whole_number(row[name]) for name in _SIZES if row.get(name) not in (None, "")]
            time = _time(row.get(_TIME))
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(
                f"Row {number} of the list {url} cannot be understood ({first_line(error)[:-1]}): give sizes in bytes, "
                "and times as ISO 8601."
            ) from None
        entries.append((path, sizes[0] if sizes else None, time))
    columns = zip(zip(*entries, strict=True), _ENTRIES.types, strict=True)
    return _batch(*(pa.array(column, type_) for column, type_ in columns))


def _whole_number(value: Any) -> int:
    size = int(value)
    if abs(size) > _MOST_BYTES:
        raise OverflowError(f"{size} is no size.")
    return size


def _time(value: object) -> datetime | None:
    if value in (None, ""):
        return None
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(time, datetime):
        raise TypeError(f"{value!r} is no time.")
    return time if time.tzinfo else time.replace(tzinfo=UTC)
