"""The rows of a finished run of codes or predictions, in memory: some ten bytes and the path of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import FAILED, OK, PREDICTIONS, predictions_schema
from flowers_batch.errors import InputError
from flowers_batch.pages.review.memory import check_memory
from flowers_batch.pages.review.predictions import NO_CLASS, Predictions

_COLUMNS = ["path", "status", "reason", "message"]
_PREDICTED = ["prediction", "probability"]
MAX_FOLDERS = 500
_FIRST_FOLDER = "^(?P<folder>[^/]+)/"


class PhotoTable:
    """The photos of a run, and what a classifier says about them.

    A row's number is the position of its photo in the run, and the only name by which the page refers to a photo.

    Args:
        run: A finished run of codes or of predictions.

    Attributes:
        run: That run.
        is_ok: Whether each photo could be read: bool [rows].
        paths: The path of each row: string [rows].
        folders: The folders of the first level, at most `MAX_FOLDERS`, sorted.
        predictions: Of the run or of the latest classifier fitted here; None while there is none. Whoever uses it twice
            takes it once: another thread may replace it.

    Raises:
        InputError: The rows do not fit in memory.
    """

    def __init__(self, run: Run):
        check_memory(run)
        self.run = run
        classes: dict[str, int] = {}
        folders: set[str] = set()
        # Paths stay in one array per shard: a copy into one for all would take their memory twice.
        shards = [self._read(shard, classes, folders) for shard in range(run.shards)]
        paths, codes, probabilities, is_ok, failures = zip(*shards, strict=True)
        self.paths = pa.chunked_array(paths, pa.string())
        self.folders = sorted(folders)[:MAX_FOLDERS]
        self._first_rows = np.cumsum([0, *map(len, paths)])[:-1]  # of each shard
        self.is_ok: NDArray[np.bool_] = np.concatenate(is_ok)
        self._failed_rows = np.flatnonzero(~self.is_ok)
        self._failures = pa.concat_tables(failures).combine_chunks()  # their reasons and messages
        self.predictions: Predictions | None = None
        if run.job.kind == PREDICTIONS:
            self.predictions = Predictions(tuple(classes), np.concatenate(codes), np.concatenate(probabilities))

    def _read(self, shard: int, classes: dict[str, int], folders: set[str]) -> tuple[Any, ...]:
        """Return a shard's paths, codes of predictions, probabilities, whether rows are ok, and failed rows.

        Args:
            shard: Its number.
            classes: Numbers of the predictions' classes, in the order of their first row; gains those of the shard.
            folders: Gains the folders of the first level that its paths are in.
        """
        has_predictions = self.run.job.kind == PREDICTIONS
        names = _COLUMNS + _PREDICTED * has_predictions
        schema = pa.schema([predictions_schema().field(name) for name in names])
        rows = pa.Table.from_batches(self.run.read_shard(shard, names), schema).combine_chunks()
        is_ok = pc.equal(rows["status"], OK)
        if len(folders) < MAX_FOLDERS:
            folders.update(pc.unique(first_folders(rows["path"])).drop_null().to_pylist())
        codes = probabilities = np.empty(0)
        if has_predictions:
            predictions = rows["prediction"].cast(pa.string())
            for name in pc.unique(predictions).drop_null().to_pylist():
                classes.setdefault(name, len(classes))
            codes = pc.index_in(predictions, pa.array(classes, pa.string())).fill_null(NO_CLASS).to_numpy()
            probabilities = rows["probability"].cast(pa.float32()).to_numpy()
        return (
            rows["path"].combine_chunks(),
            codes,
            probabilities,
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
        predictions = self.predictions
        return [self._describe(row, predictions) for row in rows]

    def path(self, row: int) -> str:
        """Return the path of a row by number.

        Raises:
            InputError: There is no such row.
        """
        self.check(row)
        return self.paths[row].as_py()

    def check(self, row: int) -> None:
        """Raise an error if there is no such row.

        Raises:
            InputError: There is none.
        """
        if not 0 <= row < len(self):
            raise InputError(f"There is no photo {row}: reload the page.")

    def _describe(self, row: int, predictions: Predictions | None) -> dict[str, Any]:
        path = self.path(row)
        top = predictions.top(row) if predictions else None
        failure = {"reason": None, "message": None}
        if not self.is_ok[row]:
            (failure,) = self._failures.slice(int(np.searchsorted(self._failed_rows, row)), 1).to_pylist()
        return {
            "path": path,
            "prediction": top[0] if top else None,
            "probability": top[1] if top else None,
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

    def place_of(self, row: int) -> tuple[int, int]:
        """Return the number of the shard that a row is in, and its position there."""
        shard = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        return shard, row - int(self._first_rows[shard])


def first_folders(paths: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return the folder of the first level that each path is in; null directly in the root."""
    return pc.struct_field(pc.extract_regex(paths, _FIRST_FOLDER), 0)
