"""The order of paths: detecting it, merging in it, and sorting more than memory holds, in a SQLite scratch file."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from operator import methodcaller
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.errors import RunError
from flowers_batch.sources.images import PATH, ROWS_AT_ONCE, paths_bytes

Row = TypeVar("Row", bound=tuple[int | float | bytes | str | None, ...])
_MEMORY_KIB = 32 << 10  # at most for a table, and as much again for sorting it


def sorted_rows(rows: Iterable[Row], *, memory_kib: int = _MEMORY_KIB) -> Iterator[Row]:
    """Yield what `sorted(rows)` gives, for more rows than fit into memory; None comes first.

    Args:
        rows: Tuples of one length; values at the same place are of one type, or None.

    Raises:
        RunError: The scratch disk is full.
    """
    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        return
    columns = ", ".join(f"c{number}" for number in range(len(first)))
    with scratch_database(memory_kib) as database:
        database.execute(f"CREATE TABLE rows ({columns})")
        places = ", ".join("?" * len(first))
        database.executemany(f"INSERT INTO rows VALUES ({places})", chain([first], iterator))
        yield from database.execute(f"SELECT * FROM rows ORDER BY {columns}")


def batches_in_order(
    batches: Iterable[pa.RecordBatch], key: Callable[[pa.RecordBatch], Sequence[pa.Array]] = lambda batch: ()
) -> Iterator[pa.RecordBatch]:
    """Sort the rows of batches with one schema, on disk; nulls come first.

    Args:
        batches: Their columns are of text, bytes, integers, times or booleans.
        key: Returns columns to sort a batch by; ties are broken by the batch's own columns.

    Raises:
        RunError: The scratch disk is full.
    """
    iterator = iter(batches)
    first = next(iterator, None)
    if first is None:
        return
    rows = sorted_rows(
        row
        for batch in chain([first], iterator)
        for start in range(0, len(batch), ROWS_AT_ONCE)
        for row in _rows(batch.slice(start, ROWS_AT_ONCE), key)
    )
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        columns = list(zip(*chunk, strict=True))[-len(first.schema) :]
        arrays = [_column(values, type_) for values, type_ in zip(columns, first.schema.types, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=first.schema)


def _rows(
    batch: pa.RecordBatch, key: Callable[[pa.RecordBatch], Sequence[pa.Array]]
) -> Iterator[tuple[int | bytes | str | None, ...]]:
    own = [column if _is_text_or_bytes(column.type) else column.cast(pa.int64()) for column in batch.columns]
    return zip(*(column.to_pylist() for column in (*key(batch), *own)), strict=True)


def _column(values: Sequence[int | bytes | str | None], type_: pa.DataType) -> pa.Array:
    return pa.array(values, type_) if _is_text_or_bytes(type_) else pa.array(values, pa.int64()).cast(type_)


def _is_text_or_bytes(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_binary(type_)


def are_in_path_order(batches: Iterable[pa.RecordBatch]) -> bool:
    """Return whether all rows are in the order of their paths' bytes; repeats are allowed."""
    return all(is_in_order for _, is_in_order in with_path_order(batches))


def with_path_order(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, bool]]:
    """Yield each batch, and whether its rows, and the last one before, are in the order of their paths' bytes."""
    last = None
    for batch in batches:
        names = paths_bytes(batch[PATH])
        yield batch, not pc.any(pc.less(names, _shifted(last, names))).as_py()
        last = names[-1].as_py() if len(names) else last


def without_repeats(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Drop rows that have the same path as the one before; yield each batch, and how many rows it lost."""
    last = None
    for batch in batches:
        paths = batch[PATH]
        kept = batch.filter(pc.not_equal(paths, _shifted(last, paths)).fill_null(True))
        last = paths[-1].as_py() if len(paths) else last
        yield kept, len(batch) - len(kept)


def _shifted(last: str | bytes | None, column: pa.Array) -> pa.Array:
    """Return a column shifted by one row: it begins with the previous batch's last value, and lacks its own last."""
    return pa.concat_arrays([pa.array([last], column.type), column])[:-1]


def aligned(
    streams: Sequence[Iterable[pa.RecordBatch]], schemas: Sequence[pa.Schema]
) -> Iterator[list[pa.RecordBatch]]:
    """Cut batches of several streams so that those of one step contain all rows of one range of paths.

    Args:
        streams: Each in the order of its paths' bytes.
        schemas: Of each stream.

    Yields:
        A batch of each stream, some of them without rows.
    """
    ended = [pa.RecordBatch.from_pylist([], schema) for schema in schemas]
    heads = ended
    rest = [filter(len, stream) for stream in streams]
    while True:
        heads = [head if len(head) else next(left, none) for head, left, none in zip(heads, rest, ended, strict=True)]
        names = [paths_bytes(head[PATH]) for head in heads]
        lasts = [column[-1].as_py() for column in names if len(column)]
        if not lasts:
            return
        ends = [bisect_right(column, min(lasts), key=methodcaller("as_py")) for column in names]
        yield [head.slice(0, end) for head, end in zip(heads, ends, strict=True)]
        heads = [head.slice(end) for head, end in zip(heads, ends, strict=True)]


def merged(streams: Sequence[Iterable[pa.RecordBatch]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Merge streams with the same columns, all in the order of paths' bytes."""
    for pieces in aligned(streams, [schema] * len(streams)):
        first, *others = filter(len, pieces)
        if others:
            rows = pa.concat_batches([first, *others])
            first = rows.take(pc.sort_indices(paths_bytes(rows[PATH])))
        yield first


@contextmanager
def unique_names() -> Iterator[UniqueNames]:
    """Give a `UniqueNames`, whose names are in a scratch file."""
    with scratch_database() as database:
        yield UniqueNames(database)


class UniqueNames:
    """Makes names unique."""

    def __init__(self, database: sqlite3.Connection):
        self._database = database
        database.execute("CREATE TABLE names (name BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID")

    def unique(self, name: bytes) -> bytes:
        """Return the name, with `#2`, `#3` and so on if it was given before."""
        if self._database.execute("INSERT OR IGNORE INTO names VALUES (?, 1)", (name,)).rowcount:
            return name
        self._database.execute("UPDATE names SET times = times + 1 WHERE name = ?", (name,))
        (times,) = self._database.execute("SELECT times FROM names WHERE name = ?", (name,)).fetchone()
        return self.unique(b"%b#%d" % (name, times))  # which may be a name itself


@contextmanager
def scratch_database(memory_kib: int = _MEMORY_KIB) -> Iterator[sqlite3.Connection]:
    """Give a temporary database: in memory up to a bound, then in the folder that TMPDIR names."""
    database = sqlite3.connect("")
    try:
        database.execute(f"PRAGMA cache_size = -{memory_kib}")  # negative: KiB
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        yield database
    except sqlite3.OperationalError as error:
        raise RunError(f"The images cannot be sorted ({error}): set TMPDIR to a folder with more room.") from None
    finally:
        database.close()
