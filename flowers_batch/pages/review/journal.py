"""A CSV file of labels to which each change is appended, and synced to disk before it is acknowledged."""

from __future__ import annotations

import csv
import io
import os
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from flowers_batch.classifier.labels_file import LABEL_COLUMNS, read_labels
from flowers_batch.dataset.spreadsheet import cell_of
from flowers_batch.errors import InputError, RunError
from flowers_batch.pages.review.csv_end import has_closed_quotes, holds_rows, is_time, rows_with_offsets
from flowers_batch.storage.local_files import fsync
from flowers_batch.storage.locks import try_lock
from flowers_batch.storage.opening import PathOrUrl
from flowers_batch.storage.own_files import open_own_file
from flowers_batch.storage.subfolders import make_folder
from flowers_batch.storage.text_tables import Layout, find_columns, find_layout

_TIME = "time"
_OWN = Layout(",", (*LABEL_COLUMNS, _TIME), is_padded=False, lines=1)  # of a file that a review creates
_MAX_UNDO_STEPS = 1000
_REMEDY = "name another file for `labels`, such as the one that a link leads to"
_TORN = ".torn"  # suffix of the file that keeps a partly written row


class Journal:
    """A file of labels, locked against other writers until it is closed.

    Args:
        file: On this machine. It is created if it does not exist; else it must be a CSV file with the columns `path`
            and `label`. Its other columns are left empty in added rows.

    Attributes:
        file: Its absolute path.
        labels: Its current labels, by path.
        torn: The file that got a partly written row when this one was opened; None if there was none.

    Raises:
        InputError: It is not such a file, is a link, cannot be written, or is in use by another process.
    """

    def __init__(self, file: PathOrUrl):
        if ":/" in os.fspath(file):  # a secret may be in it
            raise InputError("Labels cannot be appended to a URL: choose a CSV file on this machine.")
        if os.fspath(file).lower().endswith(".parquet"):
            raise InputError(f"Labels cannot be appended to {file}: choose a CSV file on this machine.")
        self.file = Path(file).absolute()
        try:
            make_folder(str(self.file.parent))
            self._handle = open_own_file(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644, _REMEDY)
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
        self._layout = _OWN
        self.torn: Path | None = None
        if self._size:
            self._repair_end()
        else:
            header = _csv_row(_OWN.header, _OWN.delimiter)
            self._append(f"\ufeff{header}")  # with the mark, spreadsheets read it as UTF-8
            fsync(self.file.parent)
        self._places = find_columns(self._layout.header, f"the labels file {self.file}", LABEL_COLUMNS, (_TIME,))
        self.labels = read_labels(str(self.file)).labels
        # Of each change: the size of the file before it, and the labels that it replaced.
        self._undo_steps = deque[tuple[int, dict[str, str | None]]](maxlen=_MAX_UNDO_STEPS)

    def _repair_end(self) -> None:
        """Make the file end after a complete row. A file that is damaged, or not a file of labels, is not changed."""
        content = self._content()
        written = content.rstrip(b"\0")  # a machine that lost its power may leave zeros at the end
        try:
            written[: written.rfind(b"\n") + 1].decode()
            self._layout = find_layout(written.decode("utf-8-sig", "replace").splitlines(keepends=True), LABEL_COLUMNS)
            find_columns(self._layout.header, f"the labels file {self.file}", LABEL_COLUMNS)
            *_, (start, last) = rows_with_offsets(written, self._layout)
        except UnicodeDecodeError:
            raise InputError(f"Labels cannot be added to {self.file}, which is not UTF-8: save it as UTF-8.") from None
        except csv.Error as error:
            raise InputError(f"{self.file} is not a labels file ({error}): choose another file for `labels`.") from None
        rest, is_closed = written[start:], has_closed_quotes(written[start:], self._layout)
        is_own = self._layout.header == _OWN.header
        is_complete = len(last) == len(_OWN.header) and is_time(last[-1]) and rest[-1:] != b"\r"
        if is_closed and rest.endswith(b"\n"):
            self._set_aside(content, len(written))
        elif is_closed and (is_complete or not is_own):
            self._set_aside(content, len(written))
            self._append("\r\n")  # a person's own file, whose last row is complete
        elif not is_closed and holds_rows(rest, self._layout, has_time=is_own):
            raise InputError(f"{self.file} has an unclosed quotation mark after byte {start}: correct that row.")
        else:
            self._set_aside(content, start)

    def _content(self) -> bytes:
        with open(self._handle, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()

    def _set_aside(self, content: bytes, start: int) -> None:
        """Move the end of the file, a partly written row that was never acknowledged, to a file of its own."""
        if start < len(content):
            self.torn = self.file.with_name(self.file.name + _TORN)
            try:
                with open(self.torn, "ab", opener=open_own_file) as file:
                    file.write(content[start:])
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise self._write_error(error) from None
            self._truncate(start)

    def write(self, labels: Mapping[str, str]) -> None:
        """Append labels by path, and return when they are on disk.

        Raises:
            RunError: The file cannot be written, or another program has changed it; then nothing was added.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        size = self._size
        self._append("".join(self._row_of(path, label, now) for path, label in labels.items()))
        self._undo_steps.append((size, {path: self.labels.get(path) for path in labels}))
        self.labels |= labels

    def _row_of(self, path: str, label: str, time: str) -> str:
        cells = [""] * len(self._layout.header)
        for column, value in zip((*LABEL_COLUMNS, _TIME), (path, label, time), strict=True):
            if column in self._places:
                cells[self._places[column]] = cell_of(value)
        return _csv_row(cells, self._layout.delimiter)

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


def _csv_row(cells: Sequence[str], delimiter: str) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter).writerow(cells)
    return buffer.getvalue()
