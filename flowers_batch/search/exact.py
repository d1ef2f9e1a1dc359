"""Exact search: all codes are in memory, and each is compared with the query."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.normalization import L2, Normalization
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import codes_of
from flowers_batch.progress import Progress, Reporter

_QUERIES_AT_ONCE = 64


class ExactIndex:
    """All codes of a run in memory, normalised, in float32: half the memory would take five times as long to convert.

    Args:
        run: The codes folder.
        reporter: Receives progress.
    """

    def __init__(self, run: Run, reporter: Reporter):
        normalize = Normalization(L2)
        images = run.manifest.images
        self._codes = np.empty((images, run.code_width), np.float32)
        self._rows = np.empty(images, np.int64)
        found = read = 0
        for batch in run.batches(["code"]):
            codes, ok = codes_of(batch)
            self._codes[found : found + len(codes)] = normalize(codes)
            self._rows[found : found + len(codes)] = read + np.flatnonzero(ok)
            found, read = found + len(codes), read + len(batch)
            reporter.update(Progress(f"reading codes: {read} of {images}"))
        self._codes, self._rows = self._codes[:found], self._rows[:found]

    def search(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.int_], NDArray[np.float32]]:
        """Return the nearest photos of each query, as `similar.Index` says."""
        found = [
            nearest_first(self._rows[None], queries[start : start + _QUERIES_AT_ONCE] @ self._codes.T, count)
            for start in range(0, len(queries), _QUERIES_AT_ONCE)
        ]
        return np.concatenate([rows for rows, _ in found]), np.concatenate([similarities for _, similarities in found])


def nearest_first(
    rows: NDArray[np.int_], similarities: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int_], NDArray[np.float32]]:
    """Return the `count` most similar of some photos, of equally similar ones the first.

    Args:
        rows: int [Q, N] or, of all queries alike, [1, N].
        similarities: float32 [Q, N].
        count: All are returned, if there are fewer.

    Returns:
        Rows and similarities, both [Q, count].
    """
    count = min(count, similarities.shape[1])
    if not count:
        return np.empty((len(similarities), 0), np.int64), np.empty((len(similarities), 0), np.float32)
    chosen = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
    nearest = np.take_along_axis(similarities, chosen, 1)
    order = np.lexsort((chosen, -nearest), axis=1)
    chosen = np.take_along_axis(chosen, order, 1)
    found = np.take_along_axis(np.broadcast_to(rows, similarities.shape), chosen, 1)
    return found, np.take_along_axis(nearest, order, 1)
