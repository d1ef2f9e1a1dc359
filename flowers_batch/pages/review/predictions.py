"""The rows of a finished prediction run, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK, PREDICTIONS
from flowers_batch.dataset.shard_file import read_shard
from flowers_batch.errors import InputError

_TEXT = pa.large_string()  # an archive's paths may exceed the two gigabytes that `string` can address
_SCHEMA = pa.schema(
    [("path", _TEXT), ("prediction", _TEXT), ("probability", pa.float32())]
    + [(name, _TEXT) for name in ("status", "reason", "message")]
)


class PredictionTable:
    """The columns of a prediction run that the review page shows; read-only.

    A row's number is the position of its photo in the run, and the only name by which the page refers to a photo.

    Args:
        run: A finished run of predictions.

    Attributes:
        run: That run.
        rows: Columns `path`, `prediction`, `probability`, `status`, `reason` and `message`.
    """

    def __init__(self, run: Run):
        self.run = run
        batches: list[pa.RecordBatch] = []
        counts = [0]
        for shard in range(run.shards):
            in_shard = [batch.cast(_SCHEMA) for batch in read_shard(run.folder, PREDICTIONS, shard, _SCHEMA.names)]
            batches += in_shard
            counts.append(sum(map(len, in_shard)))
        self.rows = pa.Table.from_batches(batches).combine_chunks()
        self._first_rows = np.cumsum(counts)[:-1]  # of each shard

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return rows by number.

        Raises:
            InputError: There is no such row.
        """
        for row in rows:
            if not 0 <= row < len(self):
                raise InputError(f"There is no photo {row}: reload the page.")
        return self.rows.take(pa.array(rows, pa.int64())).to_pylist()

    def find(self, paths: Iterable[str]) -> dict[str, int]:
        """Return row numbers by path, in the order of the paths, leaving out unknown paths."""
        paths = list(paths)
        found = pc.index_in(self.rows["path"], pa.array(paths, _TEXT))
        rows = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
        positions = found.drop_null().to_numpy()
        return {paths[position]: row for position, row in sorted(zip(positions.tolist(), rows.tolist(), strict=True))}

    def shard_of(self, row: int) -> int:
        """Return the number of the shard that a row is in."""
        return int(np.searchsorted(self._first_rows, row, side="right")) - 1

    def is_ok(self) -> NDArray[np.bool_]:
        """Return whether each photo could be read: bool [rows]."""
        return pc.equal(self.rows["status"], OK).to_numpy(zero_copy_only=False)

    def is_predicted_as(self, label: str) -> NDArray[np.bool_]:
        """Return whether each photo's prediction is a label: bool [rows]."""
        same = pc.fill_null(pc.equal(self.rows["prediction"], label), False)
        return same.to_numpy(zero_copy_only=False)

    def by_confidence(self, is_chosen: NDArray[np.bool_]) -> NDArray[np.int_]:
        """Return the chosen rows, the least confident first."""
        rows = np.flatnonzero(is_chosen)
        return rows[np.argsort(self.rows["probability"].to_numpy()[rows], kind="stable")]

    def predicted_classes(self) -> list[str]:
        """Return the labels that occur among the predictions, in the order of their first row."""
        return pc.unique(self.rows["prediction"]).drop_null().to_pylist()
