"""What `organize` has made in a tree: a file in it, by which it knows its own entries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from flowers_batch.errors import InputError
from flowers_batch.sources.images import ROWS_AT_ONCE
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.io_errors import passing_errors, raise_io_error
from flowers_batch.storage.parquet_files import open_parquet

OWN = ".flowers-batch"  # the folder in a tree that is the program's; no class has a folder that begins with a dot
RECORD = "tree.parquet"
_FORMAT, _FORMAT_KEY = b"1", b"flowers_batch.tree"
_SCHEMA = pa.schema(
    [
        pa.field("name", pa.binary(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("target", pa.binary()),
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
    ],
    metadata={_FORMAT_KEY: _FORMAT},
)


class Entry(NamedTuple):
    """An entry of a tree.

    Attributes:
        name: Its name relative to the tree.
        path: The key of the photo or the sidecar that it shows.
        target: Where it leads, of a symbolic link; None for a file.
        size: The bytes of a file.
        mtime_ns: When a file was changed: nanoseconds since 1970.
    """

    name: bytes
    path: str
    target: bytes | None = None
    size: int | None = None
    mtime_ns: int | None = None


def read_record(folder: Folder) -> Iterator[Entry]:
    """Yield the entries that were made in a tree, or may have been, if a run was killed; none without a record.

    Args:
        folder: The folder `OWN` in the tree.

    Raises:
        InputError: The record is damaged, or a newer version of flowers_batch wrote it.
        RunError: It cannot be read.
    """
    url = folder.url_of(RECORD)
    try:
        with folder.open(RECORD) as handle, open_parquet(handle) as file:
            if (file.schema_arrow.metadata or {}).get(_FORMAT_KEY) != _FORMAT or not file.schema_arrow.equals(_SCHEMA):
                raise _damaged(url)
            for batch in file.iter_batches(ROWS_AT_ONCE):
                batch.validate(full=True)
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    entry = Entry(*values)
                    if not _is_below(entry.name):
                        raise _damaged(url)
                    yield entry
    except FileNotFoundError:
        return
    except (OSError, pa.ArrowException) as error:
        raise_io_error(url, error)
        raise _damaged(url) from None


def write_record(folder: Folder, entries: Iterable[Entry]) -> None:
    """Publish the record of a tree.

    Raises:
        RunError: It cannot be written.
    """
    iterator = iter(passing_errors(entries))
    with folder.publish(RECORD) as scratch, pq.ParquetWriter(scratch, _SCHEMA, compression="zstd") as writer:
        while chunk := list(islice(iterator, ROWS_AT_ONCE)):
            columns = zip(zip(*chunk, strict=True), _SCHEMA.types, strict=True)
            arrays = [pa.array(values, kind) for values, kind in columns]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))


def _is_below(name: bytes) -> bool:
    """Return whether an entry is in a class's folder, wherever the record comes from."""
    parts = name.split(b"/")
    return (
        len(parts) > 1 and b"\0" not in name and {b"", b".", b".."}.isdisjoint(parts) and parts[0] != os.fsencode(OWN)
    )


def _damaged(url: str) -> InputError:
    return InputError(
        f"{url} is damaged, or is of a newer version of flowers_batch: restore it, or choose a new folder for the tree."
    )
