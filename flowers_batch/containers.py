"""Files that hold many images as sources: tars, and Parquet tables with the images' bytes."""

from __future__ import annotations

import io
import tarfile
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import accumulate, repeat
from threading import Lock
from typing import ClassVar, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from flowers_batch.config import InputError, first_line
from flowers_batch.reading import (
    EPOCH,
    PATH,
    ROWS_AT_ONCE,
    Image,
    ReadError,
    batches_of,
    check_size,
    is_image,
    path_bytes,
    path_text,
    read_bytes,
)
from flowers_batch.sorting import unique_names
from flowers_batch.storage import Folder

BYTES, IMAGE = "bytes", "image"  # a field of Hugging Face's images, and their column
_FILES_OPEN = 8  # by a process: a shard's images may lie in several, and threads are a little apart
_DISK_BUFFER_BYTES, _STORE_BUFFER_BYTES = 16 << 10, 1 << 20  # a store's requests are slow, each of them
_WINDOW_BYTES = 32 << 20  # of rows that were passed over, and may still be asked for
_WINDOW_ROWS = 256
_GROUPS_OPEN = 4  # row groups of a table: threads are a little apart
T = TypeVar("T")


@dataclass
class _Containers(ABC):
    """Files in one folder, each with many images.

    Attributes:
        folder: Where the files lie.
        name: The file's name, or a pattern of names.
        ignored: What lies in the files and is no image, counted while listing.
        repeated: None ever is: an image with another's path gets `#2`.
    """

    folder: Folder
    name: str
    ignored: int = field(default=0, init=False)
    repeated: int = field(default=0, init=False)
    root: ClassVar[None] = None
    in_path_order: ClassVar[bool] = False
    found_by_path: ClassVar[bool] = False

    @property
    def url(self) -> str:
        """The absolute path or the URL of the file, or the pattern."""
        return self.folder.url_of(self.name)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Lists the images, file by file in the order of names, and from front to back in each: columns `IMAGES`.

        Raises:
            InputError: A file is not whole, so that images would be left out in silence.
        """
        self.ignored = 0
        return batches_of(self._images())

    def _images(self) -> Iterator[Image]:
        with unique_names() as names:
            for name in self.folder.matching(self.name):
                changed = _changed(self.folder, name)
                for path, size, offset in self._members(name):
                    yield Image(path_text(names.unique(path)), size, changed, name, offset)

    @abstractmethod
    def _members(self, name: str) -> Iterator[tuple[bytes, int, int | None]]:
        """Path, size and offset of each image in a file."""

    def read(self, image: Image) -> bytes:
        """Reads an image's bytes.

        Raises:
            ReadError: It is not there, is too large, or cannot be read.
            RunError: The folder is not there any more.
        """
        if image.source is None or image.offset is None:
            raise ReadError("unreadable", f"It does not lie in {self.url} in one piece.")
        name, changed, offset = image.source, image.mtime, image.offset

        def read() -> bytes:
            try:
                return self._read(name, changed, offset, image.bytes)
            except OSError:
                _opened.cache_clear()  # what failed once is opened anew
                raise

        return read_bytes(self.folder, read)

    @abstractmethod
    def _read(self, name: str, changed: datetime, offset: int, size: int) -> bytes:
        """An image's bytes, read once."""


def _changed(folder: Folder, name: str) -> datetime:
    return folder.filesystem.get_file_info(folder.at(name)).mtime or EPOCH


@lru_cache(_FILES_OPEN)
def _opened(how: Callable[[pa.NativeFile, str], T], folder: Folder, name: str, changed: datetime) -> T:
    """An open file, which threads share.

    Raises:
        ReadError: It is not the file that was listed, so that another photo lies at the place of each.
    """
    file = folder.open(name)
    if _changed(folder, name) != changed:  # looked at once it is open: it stays what it is, whatever replaces it
        raise ReadError("missing", "The file that holds it was replaced since it was listed.")
    return how(file, folder.url_of(name))


@dataclass
class TarSource(_Containers):
    """Images in tars, as WebDataset has them: read where they lie, never unpacked; `path` is `tar!member`.

    A member's name is only a name, wherever it points. Members that are no files, or no images by their names, are
    ignored.
    """

    def _members(self, name: str) -> Iterator[tuple[bytes, int, int | None]]:
        for member in _members_of(self.folder, name):
            path = member.name.encode("utf-8", "surrogateescape")
            if member.isreg() and is_image(path):
                # A sparse member lies in pieces: a row that cannot be read.
                yield b"%b!%b" % (name.encode(), path), member.size, None if member.issparse() else member.offset_data
            else:
                self.ignored += 1

    def _read(self, name: str, changed: datetime, offset: int, size: int) -> bytes:
        check_size(size)
        content = _opened(_as_it_is, self.folder, name, changed).read_at(size, offset)
        if len(content) < size:
            raise ReadError("unreadable", "The tar ends before the photo does: it was cut short since it was listed.")
        return content


def _as_it_is(file: pa.NativeFile, url: str) -> pa.NativeFile:
    return file


def _members_of(folder: Folder, name: str) -> Iterator[tarfile.TarInfo]:
    """All members of a tar, one in memory at a time.

    Raises:
        InputError: It is not a tar, or not whole: tarfile takes a broken header for the tar's end.
    """
    end = 0
    buffer_bytes = _DISK_BUFFER_BYTES if folder.is_local else _STORE_BUFFER_BYTES
    try:
        with closing(io.BufferedReader(folder.open(name), buffer_bytes)) as file:
            tar = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
            while member := tar.next():
                if member.size < 0 or tar.offset <= end:
                    raise tarfile.ReadError("a size is negative")
                end = tar.offset
                tar.members.clear()  # type: ignore[attr-defined]
                yield member
            end = file.seek(tar.offset)
            rest = file.read(tarfile.BLOCKSIZE)
            if not rest:
                raise tarfile.ReadError("the mark of its end is missing")
            while rest:
                if rest.count(0) < len(rest):
                    raise tarfile.ReadError("no header is there")
                rest = file.read(_STORE_BUFFER_BYTES)
    except Exception as error:  # tarfile tells of broken headers by many kinds
        raise InputError(
            f"The tar {folder.url_of(name)} cannot be read from byte {end} on ({first_line(error)[:-1]}): "
            "restore it, or move it away."
        ) from None


@dataclass
class TableSource(_Containers):
    """Images in Parquet files, as Hugging Face has them; `path` is the table's, or `file#row` where it has none."""

    def _members(self, name: str) -> Iterator[tuple[bytes, int, int | None]]:
        try:
            table = _open_table(self.folder.open(name))
            for row, path in enumerate(_paths(table, _image_column(table.schema_arrow, self.folder.url_of(name)))):
                yield path_bytes(path) if path else b"%b#%09d" % (name.encode(), row), 0, row
        except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a path that is no UTF-8
            raise InputError(
                f"The table {self.folder.url_of(name)} cannot be read: {first_line(error)[:-1]}; restore it, or move "
                "it away."
            ) from None

    def _read(self, name: str, changed: datetime, offset: int, size: int) -> bytes:
        content = _opened(_Rows, self.folder, name, changed).read(offset)
        if content is None:
            raise ReadError("missing", "The table has no bytes for it.")
        check_size(len(content))
        return content


class _Rows:
    """The images of a table, row by row: a page of it is held, and rows passed over, but never a row group."""

    def __init__(self, file: pa.NativeFile, url: str):
        self._table = _open_table(file)
        column = _image_column(self._table.schema_arrow, url)
        self._column = f"{column.name}.{BYTES}" if pa.types.is_struct(column.type) else column.name
        groups = range(self._table.num_row_groups)
        self._starts = [0, *accumulate(self._table.metadata.row_group(group).num_rows for group in groups)]
        # By row group: its next row, and the stream that gives it. One that fails is not kept.
        self._streams: dict[int, tuple[int, Iterator[bytes | None]]] = {}
        self._passed: dict[int, bytes | None] = {}
        self._lock = Lock()

    def read(self, row: int) -> bytes | None:
        """The bytes of a row; rows are best asked for about in their order, by any number of threads.

        Raises:
            ReadError: There is no such row.
        """
        with self._lock:
            if row in self._passed:
                return self._passed.pop(row)
            group = bisect_right(self._starts, row) - 1
            following, stream = self._streams.pop(group, (row + 1, iter(())))
            if following > row:
                following, stream = self._starts[group], self._from(group)
            for number, content in enumerate(stream, following):
                if number == row:
                    if row + 1 < self._starts[group + 1]:
                        self._streams[group] = row + 1, stream
                    if len(self._streams) > _GROUPS_OPEN:
                        del self._streams[next(iter(self._streams))]
                    return content
                self._pass_over(number, content)
            raise ReadError("unreadable", "The table ends before the photo's row: it was replaced since it was listed.")

    def _from(self, group: int) -> Iterator[bytes | None]:
        groups = range(self._table.num_row_groups)[group : group + 1]
        for batch in self._table.iter_batches(1, groups, [self._column], use_threads=False):
            column = batch.column(0)
            yield (column.flatten()[0] if pa.types.is_struct(column.type) else column)[0].as_py()

    def _pass_over(self, row: int, content: bytes | None) -> None:
        self._passed[row] = content
        while len(self._passed) > _WINDOW_ROWS or sum(map(len, filter(None, self._passed.values()))) > _WINDOW_BYTES:
            del self._passed[next(iter(self._passed))]


def _open_table(file: pa.NativeFile) -> pq.ParquetFile:
    return pq.ParquetFile(file, buffer_size=_STORE_BUFFER_BYTES, pre_buffer=False)


def image_columns(schema: pa.Schema) -> list[pa.Field]:
    """The columns of a table that may hold images' bytes: binary ones, and Hugging Face's struct of bytes and path."""
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


def _paths(table: pq.ParquetFile, image: pa.Field) -> Iterator[str | None]:
    """Each row's path: the image's own, else that of the column `path`, else None."""
    inner = [f"{image.name}.{PATH}"] if _is_text(_field(image.type, PATH)) else []
    outer = [column.name for column in table.schema_arrow if column.name == PATH and _is_text(column.type)]
    if not inner + outer:
        yield from repeat(None, table.metadata.num_rows)
        return
    for batch in table.iter_batches(ROWS_AT_ONCE, columns=inner + outer):
        for row in batch.to_pylist():
            yield (row.get(image.name) or {}).get(PATH) or row.get(PATH)


def _field(type_: pa.DataType, name: str) -> pa.DataType:
    """The type of a struct's field; null where it has none, or is no struct."""
    index = type_.get_field_index(name) if pa.types.is_struct(type_) else -1
    return type_.field(index).type if index >= 0 else pa.null()


def _is_binary(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)
