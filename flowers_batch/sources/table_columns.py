"""Columns of a Parquet table that describe its images, such as their labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from flowers_batch.sources.images import PATH
from flowers_batch.sources.tables import image_columns
from flowers_batch.storage.parquet_files import open_parquet
from flowers_batch.storage.retries import with_retries

_HUGGING_FACE = b"huggingface"  # the key of its metadata in a schema
_MAX_DEPTH = 8  # of structs in structs


class TableColumn:
    """Reads values of one column by their rows, with the column of one row group in memory.

    Args:
        file: The table.
        name: The column's; a dot separates it from a struct's field.

    Attributes:
        class_names: What its integers stand for, as Hugging Face's `datasets` writes it; None if it does not say.
    """

    def __init__(self, file: pa.NativeFile, name: str):
        self._table = open_parquet(file)
        self._name = name
        self.class_names = _class_names(self._table.schema_arrow, name)
        groups = range(self._table.num_row_groups)
        self._starts = np.cumsum([0, *(self._table.metadata.row_group(group).num_rows for group in groups)])
        self._values: tuple[int, pa.ChunkedArray] | None = None  # the row group in memory

    def __contains__(self, name: str) -> bool:
        return name in value_columns(self._table.schema_arrow)

    def take(self, rows: Sequence[int]) -> list[Any]:
        """Return the values of rows; fastest if rows of one row group are together."""
        if min(rows, default=0) < 0:
            raise IndexError("A row is negative")
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        values = list[Any]()
        for start, stop in _runs(groups):
            group = int(groups[start])
            values += self._read(group).take(np.asarray(rows[start:stop]) - self._starts[group]).to_pylist()
        return values

    def _read(self, group: int) -> pa.ChunkedArray:
        if self._values is None or self._values[0] != group:
            self._values = None  # before the next one is in memory, too
            rows = with_retries(lambda: self._table.read_row_group(group, [self._name]))
            self._values = group, _field_of(rows, self._name)
        return self._values[1]


def value_columns(schema: pa.Schema) -> list[str]:
    """Return the columns of text and numbers, and such fields of structs as `column.field`; no images, no paths."""
    images = {column.name for column in image_columns(schema)}
    columns = [column for column in schema if column.name not in (*images, PATH)]
    return [name for column in columns for name in _value_fields(column.name, column.type)]


def _value_fields(name: str, type_: pa.DataType, depth: int = 0) -> Iterator[str]:
    if pa.types.is_struct(type_) and depth < _MAX_DEPTH:
        for field in type_:
            yield from _value_fields(f"{name}.{field.name}", field.type, depth + 1)
    elif _is_value(type_):
        yield name


def _is_value(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_)
    return is_text or pa.types.is_boolean(type_) or pa.types.is_integer(type_) or pa.types.is_floating(type_)


def _field_of(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column, or a field of a struct, null where the struct is."""
    column, *fields = [name] if name in table.column_names else name.split(".")
    values = table[column].combine_chunks()
    while fields:
        values = values.flatten()[values.type.get_field_index(fields.pop(0))]
    return values


def _class_names(schema: pa.Schema, name: str) -> list[str] | None:
    """Return the names of a `ClassLabel`; the metadata may be anything."""
    try:
        feature = json.loads((schema.metadata or {}).get(_HUGGING_FACE, b"null"))["info"]["features"]
        for part in [name] if name in feature else name.split("."):
            feature = feature[part]
        names = feature["names"] if feature["_type"] == "ClassLabel" else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return names if isinstance(names, list) and all(isinstance(each, str) for each in names) else None


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """Return the bounds of runs of equal values."""
    bounds = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [(start, stop) for start, stop in pairwise(bounds) if stop > start]
