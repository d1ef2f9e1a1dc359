"""The rows of a finished prediction run, in memory: some ten bytes and the path of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import FAILED, OK, predictions_schema
from flowers_batch.errors import InputError
from flowers_batch.pages.review.memory import check_memory

_COLUMNS = ["path", "prediction", "probability", "status", "reason", "message"]
_SCHEMA = pa.schema([predictions_schema().field(name) for name in _COLUMNS])
_NO_CLASS = -1


class PredictionTable:
    """The columns of a prediction run that the review page shows; read-only.

    A row's number is the position of its photo in the run, and the only name by which the page refers to a photo.

    Args:
        run: A finished run of predictions.

    Attributes:
        run: That run.
        classes: The labels that occur among the predictions, in the order of their first row.
        is_ok: Whether each photo could be read: bool [rows].
        paths: The path of each row: string [rows].

    Raises:
        InputError: The rows do not fit in memory.
    """

    def __init__(self, run: Run):
        check_memory(run)
        self.run = run
        self.classes: list[str] = []
        # Paths stay in one array per shard: a copy into one for all would take their memory twice.
        paths, codes, probabilities, is_ok, failures = zip(*map(self._read, range(run.shards)), strict=True)
        self.paths = pa.chunked_array(paths, pa.string())
        self._first_rows = np.cumsum([0, *map(len, paths)])[:-1]  # of each shard
        self._codes = np.concatenate(codes)  # of the predictions: positions in `classes`
        self._probabilities = np.concatenate(probabilities)
        self.is_ok: NDArray[np.bool_] = np.concatenate(is_ok)
        self._failed_rows = np.flatnonzero(~self.is_ok)
        self._failures = pa.concat_tables(failures).combine_chunks()  # their reasons and messages

    def _read(self, shard: int) -> tuple[pa.Array, NDArray[Any], NDArray[Any], NDArray[Any], pa.Table]:
        """Return a shard's paths, codes of predictions, probabilities, whether rows are ok, and failed rows."""
        rows = pa.Table.from_batches(self.run.read_shard(shard, _COLUMNS), _SCHEMA).combine_chunks()
        predictions, is_ok = rows["prediction"].cast(pa.string()), pc.equal(rows["status"], OK)
        self.classes = list(dict.fromkeys([*self.classes, *pc.unique(predictions).drop_null().to_pylist()]))
        codes = pc.index_in(predictions, pa.array(self.classes, pa.string())).fill_null(_NO_CLASS)
        return (
            rows["path"].combine_chunks(),
            codes.to_numpy(),
            rows["probability"].cast(pa.float32()).to_numpy(),
            is_ok.to_numpy(),
            rows.filter(pc.invert(is_ok)).select(["reason", "message"]),
        )

    def __len__(self) -> int:
        return len(self.is_ok)

    def take(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return `path`, `prediction`, `probability`, `status`, `reason` and `message` of rows by number.

        Raises:
            InputError: There is no such row.
        """
        return [self._describe(row) for row in rows]

    def path(self, row: int) -> str:
        """Return the path of a row by number.

        Raises:
            InputError: There is no such row.
        """
        if not 0 <= row < len(self):
            raise InputError(f"There is no photo {row}: reload the page.")
        return self.paths[row].as_py()

    def _describe(self, row: int) -> dict[str, Any]:
        path, code = self.path(row), self._codes[row]
        has_prediction = code != _NO_CLASS
        failure = {"reason": None, "message": None}
        if not self.is_ok[row]:
            (failure,) = self._failures.slice(int(np.searchsorted(self._failed_rows, row)), 1).to_pylist()
        return {
            "path": path,
            "prediction": self.classes[code] if has_prediction else None,
            "probability": float(self._probabilities[row]) if has_prediction else None,
            "status": OK if self.is_ok[row] else FAILED,
        } | failure

    def rows_of(self, paths: pa.Array | pa.ChunkedArray) -> NDArray[np.int_]:
        """Return the row number of each path: int [paths], -1 for an unknown one. It reads all paths."""
        positions = pc.index_in(self.paths, paths.cast(pa.string()))  # of the first equal path
        rows = np.flatnonzero(positions.is_valid().to_numpy(zero_copy_only=False))
        found = np.full(len(paths), -1)
        found[positions.drop_null().to_numpy()] = rows
        return found

    def find(self, paths: Iterable[str]) -> dict[str, int]:
        """Return row numbers by path, in the order of the paths, leaving out unknown paths."""
        names = list(paths)
        rows = self.rows_of(pa.array(names, pa.string())).tolist()
        return {name: row for name, row in zip(names, rows, strict=True) if row >= 0}

    def shard_of(self, row: int) -> int:
        """Return the number of the shard that a row is in."""
        return int(np.searchsorted(self._first_rows, row, side="right")) - 1

    def predictions_of(self, rows: NDArray[np.int_]) -> pa.Array:
        """Return the predictions of rows: string [rows], null where there is none."""
        codes = self._codes[rows]
        return pa.array(self.classes, pa.string()).take(pa.array(codes, mask=codes == _NO_CLASS))

    def is_predicted_as(self, label: str) -> NDArray[np.bool_]:
        """Return whether each photo's prediction is a label: bool [rows]."""
        code = self.classes.index(label) if label in self.classes else len(self.classes)
        return self._codes == code

    def least_confident(self, is_chosen: NDArray[np.bool_], count: int) -> NDArray[np.int_]:
        """Return at most `count` of the chosen rows, the least confident first."""
        rows = np.flatnonzero(is_chosen)
        if len(rows) > count:
            rows = np.sort(rows[np.argpartition(self._probabilities[rows], count)[:count]])
        return rows[np.argsort(self._probabilities[rows], kind="stable")]
