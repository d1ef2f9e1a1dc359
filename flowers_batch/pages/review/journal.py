"""A CSV file of labels to which each change is appended, and synced to disk before it is acknowledged."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from flowers_batch.classifier.labels_file import invalid_labels_file, read_labels
from flowers_batch.dataset.spreadsheet import cell_of
from flowers_batch.errors import InputError, RunError
from flowers_batch.storage.folder import PathOrUrl
from flowers_batch.storage.local_files import fsync
from flowers_batch.storage.locks import try_lock

_COLUMNS = ["path", "label", "time"]
_MAX_TORN_LINES = 3  # of a partly written row: a longer rest is more likely a row with an unclosed quotation mark
_MAX_UNDO_STEPS = 1000
_TORN = ".torn"  # suffix of the file that keeps a partly written row


class Journal:
    """A file of labels, locked against other writers until it is closed.

    Args:
        file: On this machine. It is created if it does not exist; else it must be a CSV file with the columns `path`
            and `label`. Its other columns are left empty in added rows.

    Attributes:
        file: Its absolute path.
        labels: Its current labels, by path.

    Raises:
        InputError: It is not such a file, cannot be written, or is in use by another process.
    """

    def __init__(self, file: PathOrUrl):
        if "://" in os.fspath(file) or os.fspath(file).lower().endswith(".parquet"):
            raise InputError(f"Labels cannot be appended to {file}: choose a CSV file on this machine.")
        self.file = Path(file).absolute()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(
                f"{self.file} cannot be written ({error.strerror}): choose another file for `labels`."
            ) from None
        try:
            self._open()
        except BaseException:
            os.close(self._handle)
            raise

    def _open(self) -> None:
        if not try_lock(self._handle, str(self.file)):
            raise InputError(f"{self.file} is in use by another review: stop that one first.")
        self._size = os.fstat(self._handle).st_size
        self._columns = _COLUMNS
        if self._size:
            self._repair_end()
        else:
            self._append("\ufeff" + _csv_row(_COLUMNS))  # with the mark, spreadsheets read it as UTF-8
            fsync(self.file.parent)
        self.labels = read_labels(str(self.file)).labels
        # Of each change: the size of the file before it, and the labels that it replaced.
        self._undo_steps = deque[tuple[int, dict[str, str | None]]](maxlen=_MAX_UNDO_STEPS)

    def _repair_end(self) -> None:
        """Make the file end after a complete row. A file that is damaged, or not a file of labels, is not changed."""
        content = self.file.read_bytes()
        try:
            content[: content.rfind(b"\n") + 1].decode()
            *_, (start, last) = rows = list(_rows_with_offsets(content))
        except (ValueError, csv.Error):
            raise invalid_labels_file(str(self.file)) from None
        self._columns = rows[0][1]
        if not {"path", "label"} <= set(self._columns):
            raise invalid_labels_file(str(self.file))
        rest, is_closed = content[start:], _has_closed_quotes(content[start:])
        if rest.endswith(b"\n") and is_closed:
            return
        if is_closed and (
            self._columns != _COLUMNS or (len(last) == len(_COLUMNS) and _is_time(last[-1]) and rest[-1:] != b"\r")
        ):
            self._append("\r\n")  # a person's own file, whose last row is complete
        elif rest.count(b"\n") > _MAX_TORN_LINES:
            raise InputError(f"{self.file} has an unclosed quotation mark after byte {start}: correct that row.")
        else:  # a partly written row was never acknowledged
            self.file.with_name(self.file.name + _TORN).write_bytes(rest)
            self._truncate(start)

    def write(self, labels: Mapping[str, str]) -> None:
        """Append labels by path, and return when they are on disk.

        Raises:
            RunError: The file cannot be written, or another program has changed it; then nothing was added.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        size = self._size
        rows = ({"path": path, "label": label, "time": now} for path, label in labels.items())
        self._append("".join(_csv_row([str(cell_of(row.get(column, ""))) for column in self._columns]) for row in rows))
        self._undo_steps.append((size, {path: self.labels.get(path) for path in labels}))
        self.labels |= labels

    def undo(self) -> dict[str, str | None]:
        """Undo the last change made since the file was opened, by truncating the file; at most the last thousand.

        Returns:
            The labels before that change, by path; None for a path that had no label. Empty if there is no change.

        Raises:
            RunError: As `write` does.
        """
        if not self._undo_steps:
            return {}
        size, before = self._undo_steps[-1]
        self._check_unchanged()
        self._truncate(size)
        self._undo_steps.pop()
        self.labels |= {path: label for path, label in before.items() if label is not None}
        for path in (path for path, label in before.items() if label is None):
            del self.labels[path]
        return before

    def close(self) -> None:
        """Release the file to other writers."""
        os.close(self._handle)

    def _append(self, text: str) -> None:
        self._check_unchanged()
        left = memoryview(text.encode())
        try:
            while left:
                left = left[os.write(self._handle, left) :]
            os.fsync(self._handle)
        except OSError as error:
            self._truncate(self._size)
            raise self._write_error(error) from None
        self._size = os.fstat(self._handle).st_size

    def _truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._handle, size)
            self._size = size
            os.fsync(self._handle)
        except OSError as error:
            raise self._write_error(error) from None

    def _write_error(self, error: OSError) -> RunError:
        return RunError(f"{self.file} cannot be written: {error.strerror}.")

    def _check_unchanged(self) -> None:
        try:
            is_same = os.path.samestat(os.stat(self.file), status := os.fstat(self._handle))
        except FileNotFoundError:
            is_same = False
        if not is_same or status.st_size != self._size:
            raise RunError(f"{self.file} was changed by another program: restart the review.")


def _csv_row(cells: list[str]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()


def _rows_with_offsets(content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield each row of a CSV file: the offset of its first byte, and its cells."""
    lines = content.removeprefix(codecs.BOM_UTF8).splitlines(keepends=True)
    offsets = [len(content) - sum(map(len, lines))]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    reader = csv.reader(line.decode("utf-8", "replace") for line in lines)
    lines_before = 0
    for cells in reader:
        yield offsets[lines_before], cells
        lines_before = reader.line_num


def _has_closed_quotes(row: bytes) -> bool:
    """Return whether a row's quotation marks are all closed."""
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
