"""A head on top of codes: the columns of a prediction."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.classifier.head import Head
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import (
    CODES,
    IMAGE_COLUMNS,
    codes_of,
    predictions_schema,
)
from flowers_batch.encoding.stages import Stages, add_seconds
from flowers_batch.fingerprint import Fingerprint


class Labeller:
    """Labels codes with a head, and keeps the likeliest labels.

    Args:
        head: The classifier.
        top_k: Labels that a prediction keeps.

    Attributes:
        schema: Of the rows.
    """

    def __init__(self, head: Head, top_k: int):
        self.schema = predictions_schema()
        self._head = head
        self._top_k = min(top_k, len(head.classes))

    def columns(self, codes: NDArray[np.floating], ok: NDArray[np.bool_]) -> dict[str, pa.Array]:
        """Return the columns of a prediction.

        Args:
            codes: [images with `ok`, width].
            ok: bool [images]: which rows have a code; the others become nulls.
        """
        classes = np.array(self._head.classes, object)
        probabilities = self._head.probabilities(codes) if len(codes) else np.empty((0, len(classes)), np.float32)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self._top_k]
        best = np.take_along_axis(probabilities, order, axis=1)
        threshold = self._head.threshold or 0.0
        values: dict[str, list[Any]] = {
            "prediction": classes[order[:, 0]].tolist(),
            "probability": best[:, 0].tolist(),
            "top_labels": classes[order].tolist(),
            "top_probabilities": best.tolist(),
            "is_unknown": (best[:, 0] < threshold).tolist(),
        }
        return {name: _with_nulls(value, ok, self.schema.field(name).type) for name, value in values.items()}


class CodesLabeller:
    """Turns shards of codes into tables of labels, without a network or photos.

    Args:
        codes: The codes folder's path or URL.
        fingerprint: Of the predictions.
        labeller: The head.
    """

    def __init__(self, codes: str, fingerprint: Fingerprint, labeller: Labeller):
        self.schema = labeller.schema
        self.fingerprint = fingerprint
        self.steps = 0
        self.can_reuse_rows = False  # labelling is fast, and the codes may have changed
        self._url, self._labeller = codes, labeller

    @cached_property
    def _codes(self) -> Run:
        return open_run(self._url, CODES)

    def batches(self, shard: int, rows: pa.Table, stages: Stages) -> Iterator[pa.RecordBatch]:
        """Yield the labels of a shard's codes; `stages` gains the seconds spent in `read` and `network`."""
        started = time.perf_counter()
        for batch in self._codes.read_shard(shard, [*IMAGE_COLUMNS, "code"]):
            self.steps += len(batch)
            add_seconds(stages, "read", time.perf_counter() - started)
            started = time.perf_counter()
            codes, ok = codes_of(batch)
            columns = {name: batch[name] for name in IMAGE_COLUMNS} | self._labeller.columns(codes, ok)
            add_seconds(stages, "network", time.perf_counter() - started)
            yield pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)
            started = time.perf_counter()


def _with_nulls(values: list[Any], ok: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    remaining = iter(values)
    return pa.array([next(remaining) if present else None for present in ok], kind)
