"""What is known of one photo: its file, its size, and its likeliest classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowers_batch.dataset.schema import PREDICTIONS, codes_of
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.row_images import RowImages
from flowers_batch.sources.images import EPOCH

_TOP = 5  # classes
_COLUMNS = ["path", "bytes", "width", "height"]


def describe_photo(table: PhotoTable, images: RowImages, row: int) -> dict[str, Any]:
    """Return what is known of a photo.

    Args:
        table: The photos.
        images: Knows the manifest.
        row: Of the photo.

    Returns:
        `row`, `path`, `bytes`, `modified` (the time of the file, ISO 8601), `width`, `height`, and `top`: the likeliest
        classes and their probabilities, at most five. What is not known is None.

    Raises:
        InputError: There is no such photo.
    """
    path = table.path(row)
    predictions = table.predictions
    is_fitted = predictions is not None and predictions.head is not None
    wanted = ["code"] if is_fitted else []
    if not is_fitted and table.run.job.kind == PREDICTIONS:
        wanted = ["top_labels", "top_probabilities"]
    values = _read_row(table, row, [*_COLUMNS, *wanted])
    top: list[list[Any]] = []
    if predictions and predictions.head and values["code"] is not None:
        (probabilities,) = predictions.head.probabilities(values["code"])
        likeliest = np.argsort(-probabilities, kind="stable")[:_TOP]
        top = [[predictions.head.classes[number], float(probabilities[number])] for number in likeliest]
    elif values.get("top_labels"):
        pairs = zip(values["top_labels"], values["top_probabilities"], strict=True)
        top = [[name, float(probability)] for name, probability in pairs][:_TOP]
    rows = images.manifest_row(row)
    time = rows["mtime"][0].as_py() if rows else EPOCH
    modified = None if time == EPOCH else time.isoformat()
    known = {name: values[name] for name in _COLUMNS[1:]}
    return {"row": row, "path": path, "modified": modified, "top": top} | known


def _read_row(table: PhotoTable, row: int, columns: list[str]) -> dict[str, Any]:
    """Return columns of a row as Python values, but a code as an array [1, width]; a row group in memory."""
    shard, position = table.place_of(row)
    for batch in table.run.read_shard(shard, columns):
        if position < len(batch):
            found = batch.slice(position, 1)
            values = {name: found[name][0].as_py() for name in columns if name != "code"}
            if "code" in columns:
                codes, _ = codes_of(found)
                values["code"] = codes if len(codes) else None
            return values
        position -= len(batch)
    raise AssertionError("a shard has fewer rows than the table")
