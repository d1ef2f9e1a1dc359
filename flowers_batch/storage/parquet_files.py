"""Parquet files: opening them with errors that say that a file is damaged."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def open_parquet(file: pa.NativeFile, **options: Any) -> pq.ParquetFile:
    """Open a Parquet file whose columns have names that can be read.

    Args:
        file: The file, open for random access.
        options: Of `pyarrow.parquet.ParquetFile`.

    Raises:
        OSError: It cannot be read, or is not a Parquet file.
        pa.ArrowException: It is damaged.
    """
    try:
        parquet = pq.ParquetFile(file, **options)
        _ = parquet.schema_arrow.names
        return parquet
    except UnicodeDecodeError:
        raise pa.ArrowInvalid("a column's name is not UTF-8") from None


def read_parquet_schema(file: pa.NativeFile) -> pa.Schema:
    """Return the columns of a Parquet file; errors are those of `open_parquet`."""
    return open_parquet(file).schema_arrow
