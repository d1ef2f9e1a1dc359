"""A CSV file of labels to which each change is appended, and synced to disk before it is acknowledged."""

from __future__ import annotations

import csv
import io
import os
import stat
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from flowers_batch.classifier.chosen import CHOSEN
from flowers_batch.classifier.labels_file import LABEL_COLUMNS, read_labels
from flowers_batch.dataset.spreadsheet import cell_of
from flowers_batch.errors import InputError, RunError
from flowers_batch.pages.review.added_column import with_column
from flowers_batch.pages.review.csv_end import has_closed_quotes, holds_rows, is_time, rows_with_offsets
from flowers_batch.storage.local_files import fsync
from flowers_batch.storage.locks import try_lock
from flowers_batch.storage.opening import PathOrUrl, open_folder
from flowers_batch.storage.own_files import open_own_file
from flowers_batch.storage.subfolders import make_folder
from flowers_batch.storage.text_tables import Layout, find_columns, find_layout

_CHOSEN, _TIME = "chosen", "time"
# Of a file that a review creates. The time is last: it tells a complete row from a partly written one.
_OWN = Layout(",", (*LABEL_COLUMNS, _CHOSEN, _TIME), is_padded=False, lines=1)
_OWN_HEADERS = (_OWN.header, (*LABEL_COLUMNS, _TIME))  # the second one is that of version 0.1
_MAX_UNDO_STEPS = 1000
_REMEDY = "name another file for `labels`, such as the one that a link leads to"
_TORN = ".torn"  # suffix of the file that keeps a partly written row


class Journal:
    """A file of labels, locked against other writers until it is closed.

    Args:
        file: On this machine. It is created if it does not exist; else it must be a CSV file with the columns `path`
            and `label`. A column `chosen` is added to it; its other columns are left empty in added rows.

    Attributes:
        file: Its absolute path.
        labels: Its current labels, by path.
        chosen: How photos were chosen to be labelled, by path; of those that have a label, where it is recorded.
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
        self._lock()
        self._size = os.fstat(self._handle).st_size
        self._layout = _OWN
        self.torn: Path | None = None
        if self._size:
            self._repair_end()
            if _CHOSEN not in find_columns(self._layout.header, str(self.file), LABEL_COLUMNS, (_CHOSEN,)):
                self._add_chosen()
        else:
            header = _csv_row(_OWN.header, _OWN.delimiter)
            self._append(f"\ufeff{header}")  # with the mark, spreadsheets read it as UTF-8
            fsync(self.file.parent)
        self._places = find_columns(
            self._layout.header, f"the labels file {self.file}", LABEL_COLUMNS, (_CHOSEN, _TIME)
        )
        found = read_labels(str(self.file))
        self.labels, self.chosen = found.labels, dict(found.chosen)
        # Of each change: the size of the file before it, and the labels and `chosen` that it replaced.
        self._undo_steps = deque[tuple[int, dict[str, tuple[str | None, str]]]](maxlen=_MAX_UNDO_STEPS)

    def _repair_end(self) -> None:
        """Make the file end after a complete row. A file that is damaged, or not a file of labels, is not changed."""
        content = self._content()
        written = content.rstrip(b"\0")  # a machine that lost its power may leave zeros at the end
        try:
            written[: written.rfind(b"\n") + 1].decode()
            self._layout = find_layout(written.decode("utf-8-sig", "replace").splitlines(keepends=True), LABEL_COLUMNS)
            places = find_columns(self._layout.header, f"the labels file {self.file}", LABEL_COLUMNS, (_CHOSEN,))
            *_, (start, last) = rows_with_offsets(written, self._layout)
        except UnicodeDecodeError:
            raise InputError(f"Labels cannot be added to {self.file}, which is not UTF-8: save it as UTF-8.") from None
        except csv.Error as error:
            raise InputError(f"{self.file} is not a labels file ({error}): choose another file for `labels`.") from None
        rest, is_closed = written[start:], has_closed_quotes(written[start:], self._layout)
        is_own = self._layout.header in _OWN_HEADERS
        is_complete = len(last) == len(self._layout.header) and is_time(last[-1]) and rest[-1:] != b"\r"
        if not is_own:  # a person's row may lack its line end; one that ends in the word, or before it, is a review's
            chosen = places.get(_CHOSEN)
            is_complete = chosen is None or (chosen < len(last) and last[chosen] in ("", *CHOSEN))
        if is_closed and rest.endswith(b"\n"):
            self._set_aside(content, len(written))
        elif is_closed and is_complete:
            self._set_aside(content, len(written))
            self._append("\r\n")
        elif not is_closed and holds_rows(rest, self._layout, has_time=is_own):
            raise InputError(f"{self.file} has an unclosed quotation mark after byte {start}: correct that row.")
        else:
            self._set_aside(content, start)

    def _add_chosen(self) -> None:
        """Add the column `chosen`: a photo of a group, for example, must not pass for one that was chosen at random."""
        is_own = self._layout.header in _OWN_HEADERS
        content = with_column(self._content(), self._layout, _CHOSEN, before_last=is_own)
        with open_folder(self.file.parent).publish(self.file.name) as scratch:
            Path(scratch).write_bytes(content)
            os.chmod(scratch, stat.S_IMODE(os.fstat(self._handle).st_mode))
        before, self._handle = self._handle, open_own_file(self.file, os.O_RDWR | os.O_APPEND, remedy=_REMEDY)
        os.close(before)
        self._lock()
        self._size = len(content)
        self._layout = find_layout(content.decode("utf-8-sig").splitlines(keepends=True), LABEL_COLUMNS)

    def _lock(self) -> None:
        if not try_lock(self._handle, str(self.file)) or not self._is_at_its_name():
            raise InputError(f"{self.file} is in use by another review: stop that one first.")

    def _is_at_its_name(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.file), os.fstat(self._handle))
        except FileNotFoundError:
            return False

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

    def write(self, labels: Mapping[str, str], chosen: Mapping[str, str] = MappingProxyType({})) -> None:
        """Append labels by path, and return when they are on disk.

        Args:
            labels: By path.
            chosen: How each photo was chosen, by path: one of `CHOSEN`; without one it is not recorded.

        Raises:
            RunError: The file cannot be written, or another program has changed it; then nothing was added.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        size = self._size
        rows = ((path, label, chosen.get(path, ""), now) for path, label in labels.items())
        self._append("".join(map(self._row_of, rows)))
        self._undo_steps.append((size, {path: (self.labels.get(path), self.chosen.get(path, "")) for path in labels}))
        self.labels |= labels
        self.chosen |= {path: chosen.get(path, "") for path in labels}

    def _row_of(self, values: tuple[str, str, str, str]) -> str:
        cells = [""] * len(self._layout.header)
        for column, value in zip(_OWN.header, values, strict=True):
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
        for path, (label, chosen) in before.items():
            if label is None:
                del self.labels[path]
            else:
                self.labels[path] = label
            self.chosen[path] = chosen
        return {path: label for path, (label, _) in before.items()}

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
        if not self._is_at_its_name() or os.fstat(self._handle).st_size != self._size:
            raise RunError(f"{self.file} was changed by another program: restart the review.")


def _csv_row(cells: Sequence[str], delimiter: str) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter).writerow(cells)
    return buffer.getvalue()
