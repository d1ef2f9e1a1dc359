"""Files of an archive that are one photo, such as a RAW file and its JPEG."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter
from flowers_batch.sources.pairs import by_photo, may_be_paired


@dataclass(frozen=True)
class FilePairs:
    """The files that are one photo with others.

    Attributes:
        rows: Their rows in the archive: int64 [files], ascending.
        photos: The first row of the photo that each belongs to: int64 [files].
    """

    rows: NDArray[np.int64]
    photos: NDArray[np.int64]

    def photos_of(self, rows: NDArray[np.int_]) -> NDArray[np.int_]:
        """Return the first row of the photo that each row belongs to: int64 [rows]."""
        if not len(self.rows):
            return rows
        position = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[position] == rows, self.photos[position], rows)

    def others(self, row: int) -> list[int]:
        """Return the other rows of a row's photo."""
        order, photos = self._by_photo
        photo = self.photos_of(np.array([row]))[0]
        first, last = np.searchsorted(photos, photo, "left"), np.searchsorted(photos, photo, "right")
        rows = self.rows[order[first:last]]
        return rows[rows != row].tolist()

    @cached_property
    def _by_photo(self) -> tuple[NDArray[np.int_], NDArray[np.int64]]:
        """The positions of the files photo by photo, and their photos in this order."""
        order = np.argsort(self.photos, kind="stable")
        return order, self.photos[order]


def pairs_in(run: Run, reporter: Reporter = NULL_REPORTER) -> FilePairs:
    """Return the pairs among the photos of codes or predictions that have not failed; they take 16 bytes per file.

    Raises:
        InputError: The run is damaged.
        RunError: The disk or the store fails, or the scratch disk is full.
    """
    reporter.update(Progress("looking for files of one photo"))
    pairs: list[NDArray[np.int64]] = []
    if any(may_be_paired(batch["path"]) for batch in run.batches(["path"])):
        pairs = [np.sort([row for _, row in files]) for files in by_photo(_rows(run)) if len(files) > 1]
    rows = np.concatenate([*pairs, np.empty(0, np.int64)])
    photos = np.repeat(np.array([files[0] for files in pairs], np.int64), [len(files) for files in pairs])
    order = np.argsort(rows)
    return FilePairs(rows[order], photos[order])


def _rows(run: Run) -> Iterator[tuple[str, int]]:
    """Yield the path and the number of each row that has not failed."""
    read = 0
    for batch in run.batches(["path", "status"]):
        ok = pc.equal(batch["status"], OK)
        numbers = read + np.flatnonzero(ok.to_numpy(zero_copy_only=False))
        yield from zip(batch["path"].filter(ok).to_pylist(), numbers.tolist(), strict=True)
        read += len(batch)
