"""Parquet tables with a column of image bytes as a source of images."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, repeat
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from flowers_batch.errors import InputError
from flowers_batch.sources.containers import STORE_BUFFER_BYTES, ContainerSource, open_shared
from flowers_batch.sources.images import PATH, ROWS_AT_ONCE, path_bytes
from flowers_batch.sources.reading import ReadError, check_size
from flowers_batch.storage.io_errors import raise_io_error
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.parquet_files import open_parquet

BYTES, IMAGE = "bytes", "image"  # a field of Hugging Face's images, and their column
_BATCH_BYTES, _BATCH_ROWS = 1 << 20, 16  # that are decoded at once
_KEPT_BYTES, _KEPT_ROWS = 32 << 20, 256
_GROUPS_OPEN = 2  # row groups of a table: threads are at different places


@dataclass
class TableSource(ContainerSource):
    """Images in Parquet files, as Hugging Face has them; `path` is the table's, or `file#row` if it has none."""

    def _members(self, name: str) -> Iterator[tuple[bytes, int, int | None]]:
        try:
            table = _open_table(self.folder.open(name))
            for row, path in enumerate(
                _paths_in_table(table, _image_column(table.schema_arrow, self.folder.url_of(name)))
            ):
                member = path_bytes(path) if path else b"%b#%09d" % (name.encode(), row)
                if kind := self.skipping.kind_within(member):
                    self.left_out.skipped[kind] += 1
                else:
                    yield member, 0, row
        except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a path that is not UTF-8
            raise_io_error(self.folder.url_of(name), error)
            raise InputError(
                f"The table {self.folder.url_of(name)} cannot be read: {reason_of(error)}; restore it, or move it away."
            ) from None

    def _read(self, name: str, changed: datetime, offset: int, size: int) -> bytes:
        content = open_shared(RowReader, self.folder, name, changed).read(offset)
        if content is None:
            raise ReadError("missing", "The table has no bytes for it.")
        check_size(len(content))
        return content


class RowReader:
    """Reads the images of a table, with a page and some rows in memory, never a row group.

    Rows that are only passed stay in Arrow's memory: no Python object is made of them.

    Args:
        file: The table.
        url: Its name in messages.
        max_kept_rows: Of the last rows in memory, which may still be requested.
        max_kept_bytes: Bytes of these rows.
    """

    def __init__(
        self,
        file: pa.NativeFile,
        url: str,
        *,
        max_kept_rows: int = _KEPT_ROWS,
        max_kept_bytes: int = _KEPT_BYTES,
    ):
        self._table = _open_table(file)
        column = _image_column(self._table.schema_arrow, url)
        self._column = f"{column.name}.{BYTES}" if pa.types.is_struct(column.type) else column.name
        groups = range(self._table.num_row_groups)
        self._starts = [0, *accumulate(self._table.metadata.row_group(group).num_rows for group in groups)]
        # By row group: its next row, and the stream that gives it. One that fails is not kept.
        self._streams: dict[int, tuple[int, Iterator[pa.Array]]] = {}
        self._kept: dict[int, pa.Array] = {}  # by their first row
        self._limits = max_kept_rows, max_kept_bytes
        self._lock = Lock()

    def read(self, row: int) -> bytes | None:
        """Return the bytes of a row; fastest if rows are requested roughly in order, by any number of threads.

        Raises:
            ReadError: There is no such row.
        """
        with self._lock:
            for first, rows in self._kept.items():
                if first <= row < first + len(rows):
                    return rows[row - first].as_py()
            first, rows = self._stream_to(row)
            return rows[row - first].as_py()

    def _stream_to(self, row: int) -> tuple[int, pa.Array]:
        """Return the rows among which one is, and the first of them; keep those before it, as far as there is room."""
        if not 0 <= row < self._starts[-1]:
            raise _replaced()
        group = bisect_right(self._starts, row) - 1
        following, stream = self._streams.pop(group, (row + 1, iter(())))
        if following > row:
            while len(self._streams) >= _GROUPS_OPEN:  # before, so that its memory is used again
                del self._streams[next(iter(self._streams))]
            following, stream = self._starts[group], self.stream_group(group)
        for rows in stream:
            first, following = following, following + len(rows)
            self._keep(first, rows)
            if row < following:
                if following < self._starts[group + 1]:
                    self._streams[group] = following, stream
                return first, rows
        raise _replaced()

    def stream_group(self, group: int) -> Iterator[pa.Array]:
        """Yield the images of a row group, some rows at a time: binary [rows]."""
        groups = range(self._table.num_row_groups)[group : group + 1]
        for batch in self._table.iter_batches(self._rows_at_once(group), groups, [self._column], use_threads=False):
            column = batch.column(0)
            yield column.flatten()[0] if pa.types.is_struct(column.type) else column

    def _rows_at_once(self, group: int) -> int:
        found = self._table.metadata.row_group(group)
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES * found.num_rows // max(1, found.total_byte_size)))

    def _keep(self, first: int, rows: pa.Array) -> None:
        """Keep rows that may still be requested; drop the oldest ones above the limits."""
        self._kept[first] = rows
        max_rows, max_bytes = self._limits
        kept = self._kept
        while sum(map(len, kept.values())) > max_rows or sum(rows.nbytes for rows in kept.values()) > max_bytes:
            del kept[next(iter(kept))]


def _replaced() -> ReadError:
    return ReadError("unreadable", "The table ends before the photo's row: it was replaced since it was listed.")


def _open_table(file: pa.NativeFile) -> pq.ParquetFile:
    return open_parquet(file, buffer_size=STORE_BUFFER_BYTES, pre_buffer=False)


def image_columns(schema: pa.Schema) -> list[pa.Field]:
    """Return the columns that may contain images: binary ones, and Hugging Face's struct of bytes and path."""
    return [column for column in schema if _is_binary(column.type) or _is_binary(_field(column.type, BYTES))]


def _image_column(schema: pa.Schema, url: str) -> pa.Field:
    found = image_columns(schema)
    chosen = [column for column in found if column.name == IMAGE] or found
    if len(chosen) != 1:
        names = ", ".join(column.name for column in chosen) or "none"
        raise InputError(
            f"The table {url} must have one column of images' bytes, or name it `{IMAGE}`. Found: {names}."
        )
    return chosen[0]


def _paths_in_table(table: pq.ParquetFile, image: pa.Field) -> Iterator[str | None]:
    """Return each row's path: the image's own, else that of the column `path`, else None."""
    inner = [f"{image.name}.{PATH}"] if _is_text(_field(image.type, PATH)) else []
    outer = [column.name for column in table.schema_arrow if column.name == PATH and _is_text(column.type)]
    if not inner + outer:
        yield from repeat(None, table.metadata.num_rows)
        return
    for batch in table.iter_batches(ROWS_AT_ONCE, columns=inner + outer):
        for row in batch.to_pylist():
            yield (row.get(image.name) or {}).get(PATH) or row.get(PATH)


def _field(type_: pa.DataType, name: str) -> pa.DataType:
    """Return the type of a struct's field; null if it has none, or is not a struct."""
    index = type_.get_field_index(name) if pa.types.is_struct(type_) else -1
    return type_.field(index).type if index >= 0 else pa.null()


def _is_binary(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)
