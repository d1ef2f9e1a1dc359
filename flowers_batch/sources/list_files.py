"""Reading list files: text, CSV or Parquet."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowers_batch.errors import InputError, first_line
from flowers_batch.sources.images import (
    PATH,
    ROWS_AT_ONCE,
    TIME,
    paths_text,
)

_SIZES, _TIME = ("bytes", "size"), "mtime"  # columns that a list may have besides its paths
_BUFFER_BYTES = 1 << 20
_COLUMN_ROWS = 16384  # read from a Parquet file as columns
ENTRIES = pa.schema([pa.field(PATH, pa.string()), pa.field("bytes", pa.int64()), pa.field(_TIME, TIME)])
_FIRST, _LAST = (pa.scalar(time.replace(tzinfo=UTC), TIME).value for time in (datetime.min, datetime.max))
_MOST_BYTES = 2**63 - 1  # of a size, in the manifest's column


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
    filled = filter(None, rows)  # blank lines
    first = 1
    while chunk := list(islice(filled, ROWS_AT_ONCE)):
        columns = {
            name: _texts([row[place] if place < len(row) else None for row in chunk]) for name, place in places.items()
        }
        yield _entries_of(columns, first, url)
        first += len(chunk)


def _texts(values: list[str | None]) -> pa.Array:
    """Return fields of a CSV file, in which bytes that are not UTF-8 are surrogates, as strings."""
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
        yield _entries_of(dict(zip(rows.schema.names, rows.columns, strict=True)), first, url)
        first += len(rows)


READERS = {"txt": _of_text, "csv": _of_csv, "parquet": _of_parquet}


def _check_columns(names: Iterable[str], url: str) -> None:
    if PATH not in names:
        raise InputError(f"The list {url} has no column `{PATH}`: give that name to the column of the paths.")


def _batch(paths: pa.Array, sizes: pa.Array | None = None, times: pa.Array | None = None) -> pa.RecordBatch:
    """Return entries; a column that is None is null in all of them."""
    columns = zip((paths, sizes, times), ENTRIES.types, strict=True)
    filled = [pa.nulls(len(paths), type_) if column is None else column for column, type_ in columns]
    return pa.RecordBatch.from_arrays(filled, schema=ENTRIES)


def _entries_of(columns: Mapping[str, pa.Array], first: int, url: str) -> pa.RecordBatch:
    """Return rows of a list as entries; the number of the first row is `first`.

    Raises:
        InputError: A row has no path, or its size or time cannot be parsed.
    """
    try:
        paths = _paths(columns[PATH])
        sizes = [_whole_numbers(columns[name]) for name in _SIZES if name in columns]
        times = _times(columns[_TIME]) if _TIME in columns else None
        return _batch(paths, pc.coalesce(*sizes) if sizes else None, times)
    except pa.ArrowException:  # an unusual or wrong row is among them
        names = list(columns)
        values = zip(*(column.to_pylist() for column in columns.values()), strict=True)
        return _entries_row_by_row((dict(zip(names, row, strict=True)) for row in values), first, url)


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
        raise pa.ArrowInvalid("the column is not of integers")
    return column.cast(pa.int64())


def _times(column: pa.Array) -> pa.Array:
    text = _text(column)
    if text is not None:
        column = pc.if_else(pc.equal(text, ""), None, text)
        try:
            times = column.cast(TIME)
        except pa.ArrowInvalid:  # a time has no zone; this fails too if others have one
            times = column.cast(pa.timestamp("us")).cast(TIME)
    elif pa.types.is_timestamp(column.type):
        times = column.cast(TIME)
    else:
        raise pa.ArrowInvalid("the column is not of times")
    first, last = pc.min_max(times.cast(pa.int64())).as_py().values()
    if first is not None and not _FIRST <= first <= last <= _LAST:
        raise pa.ArrowInvalid("a time is beyond what Python knows")
    return times


def _text(column: pa.Array) -> pa.Array | None:
    """Return a column of text as strings; None for one of anything else."""
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    return column.cast(pa.string()) if is_text else None


def _entries_row_by_row(rows: Iterable[dict[str, Any]], first: int, url: str) -> pa.RecordBatch:
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
                f"Row {number} of the list {url} cannot be parsed ({first_line(error)[:-1]}): give sizes in bytes, "
                "and times as ISO 8601."
            ) from None
        entries.append((path, sizes[0] if sizes else None, time))
    columns = zip(zip(*entries, strict=True), ENTRIES.types, strict=True)
    return _batch(*(pa.array(column, type_) for column, type_ in columns))


def _whole_number(value: Any) -> int:
    size = int(value)
    if abs(size) > _MOST_BYTES:
        raise OverflowError(f"{size} is not a size.")
    return size


def _time(value: object) -> datetime | None:
    if value in (None, ""):
        return None
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(time, datetime):
        raise TypeError(f"{value!r} is not a time.")
    return time if time.tzinfo else time.replace(tzinfo=UTC)
