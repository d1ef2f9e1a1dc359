"""Labels as text: columns of any type, and numbers that programs have made floats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyarrow import types

_NUMBER = re.compile(r"-?[0-9]+(\.0)?")


def column_texts(column: pa.ChunkedArray) -> list[str]:
    """Return a column's values as text, empty for null and NaN.

    Numbers are labels, too. If all of a column's floats or decimals are whole, they are integers: pandas makes floats
    of integers if one is missing. Text is not changed.

    Raises:
        TypeError: Its values are no text, numbers or times.
        UnicodeDecodeError: Its bytes are not UTF-8.
    """
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    type_ = column.type
    if types.is_nested(type_):
        raise TypeError(f"of the type {type_}")
    values = [None if value != value else value for value in column.to_pylist()]  # NaN differs from itself
    if types.is_floating(type_) or types.is_decimal(type_):
        return _number_texts(values)
    if types.is_boolean(type_):
        return ["" if value is None else str(value).lower() for value in values]
    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_):
        values = [value and value.decode() for value in values]
    return ["" if value is None else str(value) for value in values]


def without_zero_decimals(labels: Sequence[str]) -> list[str]:
    """Return labels of a CSV file without `.0` at their ends, if all that are not empty are whole numbers."""
    if all(_NUMBER.fullmatch(label) for label in set(labels) if label):
        return [label.removesuffix(".0") for label in labels]
    return list(labels)


def _number_texts(values: Sequence[Any]) -> list[str]:
    is_whole = all(_is_whole(value) for value in values if value is not None)
    return ["" if value is None else str(int(value) if is_whole else value) for value in values]


def _is_whole(value: float | Decimal) -> bool:
    return Decimal(value).is_finite() and value == int(value)
