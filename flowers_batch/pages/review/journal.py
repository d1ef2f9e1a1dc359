"""A CSV file of labels that grows as they are given: each change is on disk before anyone is told so."""

from __future__ import annotations

import codecs
import csv
import fcntl
import io
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from flowers_batch.classifier.labels import not_labels, read_labels
from flowers_batch.dataset.spreadsheet import cell_of
from flowers_batch.errors import InputError, RunError
from flowers_batch.storage.folder import PathOrUrl, fsync

_COLUMNS = ["path", "label", "time"]
_TORN_LINES = 3  # of a row that was cut short, at most: names hardly have more
_TORN = ".torn"  # ends the name of the file that keeps what was cut off


class Journal:
    """The labels of a file, and what is added to it. Nobody else may write it meanwhile.

    Args:
        file: On this machine. Where there is none it is begun; else it is a CSV file with the columns `path` and
            `label`, whose others stay empty in what is added.

    Attributes:
        file: Its absolute path.
        labels: What it says now, by path.

    Raises:
        InputError: It is no such file, or another process writes it.
    """

    def __init__(self, file: PathOrUrl):
        if "://" in os.fspath(file) or os.fspath(file).lower().endswith(".parquet"):
            raise InputError(f"{file} cannot get labels one by one: name a CSV file on this machine.")
        self.file = Path(file).absolute()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(
                f"{self.file} cannot be written ({error.strerror}): name another file for `labels`."
            ) from None
        try:
            self._begin()
        except BaseException:
            os.close(self._handle)
            raise

    def _begin(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{self.file} is being written by another review: end that one first.") from None
        self._size = os.fstat(self._handle).st_size
        self._columns = _COLUMNS
        if self._size:
            self._continue()
        else:
            self._append("\ufeff" + _row(_COLUMNS))  # the mark tells spreadsheets that it is UTF-8
            fsync(self.file.parent)
        self.labels = read_labels(str(self.file)).labels
        self._before: list[tuple[int, dict[str, str | None]]] = []  # each change: where it begins, and what was there

    def _continue(self) -> None:
        """Goes on behind the last whole row; a file that is no such file, or is damaged, is left as it is."""
        content = self.file.read_bytes()
        try:
            content[: content.rfind(b"\n") + 1].decode()
            *_, (start, last) = rows = list(_rows(content))
        except (ValueError, csv.Error):
            raise not_labels(str(self.file)) from None
        self._columns = rows[0][1]
        if not {"path", "label"} <= set(self._columns):
            raise not_labels(str(self.file))
        rest, ends = content[start:], _ends(content[start:])
        if rest.endswith(b"\n") and ends:
            return
        if ends and (
            self._columns != _COLUMNS or (len(last) == len(_COLUMNS) and _is_time(last[-1]) and rest[-1:] != b"\r")
        ):
            self._append("\r\n")  # a person's file, whose last row is whole
        elif rest.count(b"\n") > _TORN_LINES:
            raise InputError(f"{self.file} has a quotation mark without its twin after byte {start}: mend that row.")
        else:  # what was cut short was never said to be there
            self.file.with_name(self.file.name + _TORN).write_bytes(rest)
            self._cut(start)

    def write(self, labels: Mapping[str, str]) -> None:
        """Adds labels by path, and returns when they are on disk.

        Raises:
            RunError: The file cannot be written, or somebody else has changed it; then nothing was added.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        size = self._size
        rows = ({"path": path, "label": label, "time": now} for path, label in labels.items())
        self._append("".join(_row([str(cell_of(row.get(column, ""))) for column in self._columns]) for row in rows))
        self._before.append((size, {path: self.labels.get(path) for path in labels}))
        self.labels |= labels

    def undo(self) -> dict[str, str | None]:
        """Takes the last change back that was made since the file was opened: paths, and their labels before it.

        Raises:
            RunError: As `write` does.
        """
        if not self._before:
            return {}
        size, before = self._before[-1]
        self._check()
        self._cut(size)
        self._before.pop()
        self.labels |= {path: label for path, label in before.items() if label is not None}
        for path in (path for path, label in before.items() if label is None):
            del self.labels[path]
        return before

    def close(self) -> None:
        """Lets others write the file."""
        os.close(self._handle)

    def _append(self, text: str) -> None:
        self._check()
        left = memoryview(text.encode())
        try:
            while left:
                left = left[os.write(self._handle, left) :]
            os.fsync(self._handle)
        except OSError as error:
            self._cut(self._size)
            raise self._failed(error) from None
        self._size = os.fstat(self._handle).st_size

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._handle, size)
            self._size = size
            os.fsync(self._handle)
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> RunError:
        return RunError(f"{self.file} cannot be written: {error.strerror}.")

    def _check(self) -> None:
        try:
            same = os.path.samestat(os.stat(self.file), found := os.fstat(self._handle))
        except FileNotFoundError:
            same = False
        if not same or found.st_size != self._size:
            raise RunError(f"{self.file} was changed by another program: start the review again.")


def _row(cells: list[str]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()


def _rows(content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Each row of a CSV file: the byte that it begins at, and its cells."""
    lines = content.removeprefix(codecs.BOM_UTF8).splitlines(keepends=True)
    places = [len(content) - sum(map(len, lines))]
    for line in lines:
        places.append(places[-1] + len(line))
    reader = csv.reader(line.decode("utf-8", "replace") for line in lines)
    before = 0
    for cells in reader:
        yield places[before], cells
        before = reader.line_num


def _ends(row: bytes) -> bool:
    """Whether a row's quotation marks are all closed."""
    try:
        list(csv.reader(io.StringIO(row.decode("utf-8", "replace"), newline=""), strict=True))
    except csv.Error:
        return False
    return True


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
