"""The columns of shards."""

from __future__ import annotations

import pyarrow as pa
import pytest
from dataset_rows import IMAGE_FIELDS

from flowers_batch.dataset.schema import codes_schema, folder_of, predictions_schema


@pytest.mark.parametrize(("store_as", "number"), [("float16", pa.float16()), ("float32", pa.float32())])
def test_columns_of_codes_are_as_agreed(store_as, number):
    code = pa.field("code", pa.list_(pa.field("element", number, nullable=False), 4096), True)
    assert codes_schema(4096, store_as).equals(pa.schema([*IMAGE_FIELDS, code]))


def test_columns_of_predictions_are_as_agreed():
    more = [
        pa.field("prediction", pa.string()),
        pa.field("probability", pa.float32()),
        pa.field("top_labels", pa.list_(pa.string())),
        pa.field("top_probabilities", pa.list_(pa.float32())),
        pa.field("is_unknown", pa.bool_()),
    ]
    assert predictions_schema().equals(pa.schema([*IMAGE_FIELDS, *more]))


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("a.jpg", None),
        ("roses/a.jpg", "roses"),
        ("x/y/Löwenzahn/a.jpg", "Löwenzahn"),
        ("./a.jpg", None),
        ("../a.jpg", None),
        ("../roses/a.jpg", "roses"),
        ("//bytes/%FF.jpg", None),
        ("//bytes/roses/%FF.jpg", "roses"),
    ],
)
def test_folder_is_the_parents_name(path, folder):
    assert folder_of(path) == folder
