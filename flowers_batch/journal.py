"""A CSV file of labels that grows as they are given: each change is on disk before anyone is told so."""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from flowers_batch.config import InputError, RunError
from flowers_batch.dataset import cell_of
from flowers_batch.labels import not_labels, read_labels

_COLUMNS = ["path", "label", "time"]
_QUOTE, _END = ord('"'), ord("\n")


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

    def __init__(self, file: Path):
        self.file = file.absolute()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(f"{self.file} cannot be written ({error.strerror}): name another --labels.") from None
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
            _sync_folder(self.file.parent)
        self.labels = read_labels(str(self.file)).labels
        self._before: list[tuple[int, dict[str, str | None]]] = []  # each change: where it begins, and what was there

    def _continue(self) -> None:
        """Goes on behind the last whole row."""
        content = self.file.read_bytes()
        self._columns = next(csv.reader(io.StringIO(content.decode("utf-8-sig", "replace"), newline="")), [])
        if not {"path", "label"} <= set(self._columns):
            raise not_labels(str(self.file))
        whole = _whole(content)
        if whole == self._size:
            return
        if self._columns == _COLUMNS:  # ours: what is cut short was never said to be there
            self._cut(whole)
        else:
            self._append("\r\n")

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
        """Takes the last change back that was made since the file was opened: paths, and their labels before it."""
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
            os.ftruncate(self._handle, self._size)
            raise RunError(f"{self.file} cannot be written: {error.strerror}.") from None
        self._size = os.fstat(self._handle).st_size

    def _cut(self, size: int) -> None:
        os.ftruncate(self._handle, size)
        os.fsync(self._handle)
        self._size = size

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


def _whole(content: bytes) -> int:
    """How many bytes of a CSV file belong to rows that have an end."""
    data = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero((data == _END) & (np.cumsum(data == _QUOTE) % 2 == 0))
    return int(ends[-1]) + 1 if len(ends) else 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
