"""The codes of the photos on the page: those that are shown, or those that the shown predictions were made from."""

from __future__ import annotations

from functools import cached_property
from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.training_source import TrainingSource


class ArchiveCodes:
    """The codes folder of a review, and which of its rows are which of the table's.

    Predictions have the rows of the codes that they were made from; but codes may have grown since, or be others of the
    same photos.

    Args:
        table: The photos.
        source: Names the codes folder.
    """

    def __init__(self, table: PhotoTable, source: TrainingSource):
        self._table, self._source = table, source
        self._lock = Lock()

    @property
    def are_known(self) -> bool:
        """Whether there is a codes folder."""
        return bool(self._source.codes)

    @property
    def run(self) -> Run:
        """The codes folder.

        Raises:
            InputError: There is none.
        """
        if not self._source.codes:
            raise InputError(f"Photos cannot be compared here: {self._source.unavailable}")
        with self._lock:
            return self._run

    @cached_property
    def _run(self) -> Run:
        own = self._table.run
        return own if own.job.kind == CODES else open_run(self._source.codes, CODES)

    def rows_of_photos(self, rows: NDArray[np.int_]) -> NDArray[np.int_]:
        """Return the rows in the codes folder of photos of the table: int [rows], -1 where there is none."""
        if (places := self._places) is None:
            return rows
        found = np.full(len(self._table), -1)
        found[places[places >= 0]] = np.flatnonzero(places >= 0)
        return found[rows]

    def photos_of_rows(self, rows: NDArray[np.int_]) -> NDArray[np.int_]:
        """Return the rows in the table of rows of the codes folder: int [rows], -1 where there is none."""
        places = self._places
        return rows if places is None else places[rows].astype(np.int64)

    @property
    def _places(self) -> NDArray[np.int32] | None:
        """The table's row of each row of the codes, -1 where there is none; None if they are the same."""
        run = self.run
        with self._lock:
            return self._found_places if run.manifest.shards != self._table.run.manifest.shards else None

    @cached_property
    def _found_places(self) -> NDArray[np.int32]:
        paths = [batch["path"] for batch in self._run.batches(["path"])]
        return self._table.rows_of(pa.chunked_array(paths, pa.string())).astype(np.int32)
