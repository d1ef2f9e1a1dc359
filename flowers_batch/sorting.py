"""Sorting, and finding repeats, of more than memory holds: SQLite does it in a scratch file of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import chain
from typing import TypeVar

from flowers_batch.config import RunError
from flowers_batch.reading import EPOCH

Row = TypeVar("Row", bound=tuple[int | bytes | str | None, ...])
_MEMORY_KIB = 32 << 10  # held at most for a table, and as much again for sorting it
_MICROSECOND = timedelta(microseconds=1)


def in_order(rows: Iterable[Row]) -> Iterator[Row]:
    """What `sorted(rows)` gives, for more rows than memory holds; None comes first.

    Args:
        rows: Tuples of one length; what stands at the same place in them is of one type, or None.

    Raises:
        RunError: The scratch disk is full.
    """
    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        return
    columns = ", ".join(f"c{number}" for number in range(len(first)))
    with _scratch() as database:
        database.execute(f"CREATE TABLE rows ({columns})")
        places = ", ".join("?" * len(first))
        database.executemany(f"INSERT INTO rows VALUES ({places})", chain([first], iterator))
        yield from database.execute(f"SELECT * FROM rows ORDER BY {columns}")


@contextmanager
def unique_names() -> Iterator[UniqueNames]:
    """Gives what makes names unique; their memory lies in a scratch file."""
    with _scratch() as database:
        yield UniqueNames(database)


class UniqueNames:
    """Names that were given, so that none is given twice."""

    def __init__(self, database: sqlite3.Connection):
        self._database = database
        database.execute("CREATE TABLE names (name BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID")

    def unique(self, name: bytes) -> bytes:
        """The name, with `#2`, `#3` and so on if it was given before."""
        if self._database.execute("INSERT OR IGNORE INTO names VALUES (?, 1)", (name,)).rowcount:
            return name
        self._database.execute("UPDATE names SET times = times + 1 WHERE name = ?", (name,))
        (times,) = self._database.execute("SELECT times FROM names WHERE name = ?", (name,)).fetchone()
        return self.unique(b"%b#%d" % (name, times))  # which may stand there literally


def microseconds(time: datetime) -> int:
    """A time as a number that sorts."""
    return (time - EPOCH) // _MICROSECOND


def time_of(number: int) -> datetime:
    """The time that `microseconds` gave the number of."""
    return EPOCH + number * _MICROSECOND


@contextmanager
def _scratch() -> Iterator[sqlite3.Connection]:
    """A database without a name: it lies in memory up to a bound, then in the folder that TMPDIR names."""
    database = sqlite3.connect("")
    try:
        database.execute(f"PRAGMA cache_size = -{_MEMORY_KIB}")  # negative: KiB
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        yield database
    except sqlite3.OperationalError as error:
        raise RunError(f"The images cannot be sorted ({error}): set TMPDIR to a folder with more room.") from None
    finally:
        database.close()
