"""Labels in columns of any type."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from flowers_batch.classifier.label_values import column_texts


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([1.0, None, float("nan"), 0.0, -2.0]), ["1", "", "", "0", "-2"]),
        (pa.array([1.0, None], pa.float32()), ["1", ""]),
        (pa.array([1.0, 2.0]).dictionary_encode(), ["1", "2"]),
        (pa.array([1.0, 1.5]), ["1.0", "1.5"]),
        (pa.array([1.0, float("inf")]), ["1.0", "inf"]),
        (pa.array([1e20]), ["100000000000000000000"]),
        (pa.array([Decimal("1.00"), None]), ["1", ""]),
        (pa.array([Decimal("1.50"), Decimal("2.00")]), ["1.50", "2.00"]),
        (pa.array([7, None], pa.uint8()), ["7", ""]),
        (pa.array([True, False, None]), ["true", "false", ""]),
        (pa.array(["007", "NA", "true", "null", None]), ["007", "NA", "true", "null", ""]),
        (pa.array(["1.0", "2.0", None]), ["1.0", "2.0", ""]),
        (pa.array([b"ros\xc3\xa9", None]), ["rosé", ""]),
        (pa.nulls(2), ["", ""]),
    ],
)
def test_values_of_any_type_become_text(column, texts):
    assert column_texts(pa.chunked_array([column])) == texts


@pytest.mark.parametrize("column", [pa.array([[1]]), pa.array([{"a": 1}])])
def test_nested_values_are_no_labels(column):
    with pytest.raises(TypeError, match=r"^of the type (list|struct)<"):
        column_texts(pa.chunked_array([column]))
