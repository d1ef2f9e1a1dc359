"""Reading list files: text, CSV or Parquet."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.errors import InputError
from flowers_batch.sources.images import FIRST_TIME, LAST_TIME, PATH, ROWS_AT_ONCE, TIME, paths_text
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.parquet_files import open_parquet
from flowers_batch.storage.text_tables import TextTable, find_columns

_SIZES, _TIME = ("bytes", "size"), "mtime"  # columns that a list may have besides its paths
_BUFFER_BYTES = 1 << 20
_COLUMN_ROWS = 16384  # read from a Parquet file as columns
ENTRIES = pa.schema([pa.field(PATH, pa.string()), pa.field("bytes", pa.int64()), pa.field(_TIME, TIME)])
_MOST_BYTES = 2**63 - 1  # of a size, in the manifest's column


def _of_text(file: pa.NativeFile, url: str) -> Iterator[pa.RecordBatch]:
    for block in _line_blocks(file):
        names = [line.rstrip(b"\r\n") for line in block if line.strip()]
        yield _batch(paths_text(pa.array(names, pa.binary())))


def _line_blocks(file: pa.NativeFile) -> Iterator[list[bytes]]:
    """Yield a text's lines, some thousands at a time; those of UTF-16 as UTF-8, others as they are."""
    lines = io.BufferedReader(file, _BUFFER_BYTES)
    start = lines.peek(3)[:3]
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = io.TextIOWrapper(lines, "utf-16", newline="\n")
        while block := text.readlines(_BUFFER_BYTES):
            yield [line.encode() for line in block]
        return
    if start.startswith(codecs.BOM_UTF8):
        lines.read(len(codecs.BOM_UTF8))
    while raw := lines.readlines(_BUFFER_BYTES):
        yield raw


def _of_csv(file: pa.NativeFile, url: str) -> Iterator[pa.RecordBatch]:
    # Names of files are bytes: those that are not UTF-8 are kept.
    table = TextTable(file, f"the list {url}", (PATH,), (*_SIZES, _TIME), errors="surrogateescape")
    rows, first = table.rows(), 1
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        columns = {name: _texts(cells) for name, cells in zip(table.columns, zip(*chunk, strict=True), strict=True)}
        yield _entries_of(columns, first, url)
        first += len(chunk)


def _texts(values: Sequence[str | None]) -> pa.Array:
    """Return fields of a CSV file, in which bytes that are not UTF-8 are surrogates, as strings."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        raw = [value if value is None else value.encode("utf-8", "surrogateescape") for value in values]
        return paths_text(pa.array(raw, pa.binary()))


def _of_parquet(file: pa.NativeFile, url: str) -> Iterator[pa.RecordBatch]:
    table = open_parquet(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    names = table.schema_arrow.names
    places = find_columns(names, f"the list {url}", (PATH,), (*_SIZES, _TIME))
    first = 1
    for rows in table.iter_batches(_COLUMN_ROWS, columns=[names[place] for place in places.values()]):
        yield _entries_of({name: rows[names[place]] for name, place in places.items()}, first, url)
        first += len(rows)


READERS = {"txt": _of_text, "csv": _of_csv, "tsv": _of_csv, "parquet": _of_parquet}


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
    if first is not None and not FIRST_TIME <= first <= last <= LAST_TIME:
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
                f"Row {number} of the list {url} cannot be parsed ({reason_of(error)}): give sizes in bytes, "
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
