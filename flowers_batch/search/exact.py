"""Exact search: all codes are in memory, and each is compared with the query."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.normalization import L2, Normalization
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import codes_of
from flowers_batch.progress import Progress, Reporter

_ROWS_AT_ONCE = 8192  # that are compared with a query in float32: 16 MB of 512 numbers
_QUERIES_AT_ONCE = 64


class ExactIndex:
    """All codes of a run in memory, normalised, in float16: similarities are exact to about 0.0001.

    Args:
        run: The codes folder.
        reporter: Receives progress.
    """

    def __init__(self, run: Run, reporter: Reporter):
        normalize = Normalization(L2)
        images = run.manifest.images
        self._codes = np.empty((images, run.code_width), np.float16)
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
        blocks = [queries[start : start + _QUERIES_AT_ONCE] for start in range(0, len(queries), _QUERIES_AT_ONCE)]
        found = [self._search(block, min(count, len(self._rows))) for block in blocks]
        return np.concatenate([rows for rows, _ in found]), np.concatenate([similarities for _, similarities in found])

    def _search(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.int_], NDArray[np.float32]]:
        similarities = np.empty((len(queries), len(self._rows)), np.float32)
        for start in range(0, len(self._rows), _ROWS_AT_ONCE):
            chunk = slice(start, start + _ROWS_AT_ONCE)
            similarities[:, chunk] = queries @ self._codes[chunk].astype(np.float32).T
        return nearest_first(self._rows[None], similarities, count)


def nearest_first(
    rows: NDArray[np.int_], similarities: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int_], NDArray[np.float32]]:
    """Return the `count` most similar of some photos, of equally similar ones the first.

    Args:
        rows: int [Q, N] or, of all queries alike, [1, N].
        similarities: float32 [Q, N].
        count: At most N.

    Returns:
        Rows and similarities, both [Q, count].
    """
    if not count:
        return np.empty((len(similarities), 0), np.int64), np.empty((len(similarities), 0), np.float32)
    chosen = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
    nearest = np.take_along_axis(similarities, chosen, 1)
    order = np.lexsort((chosen, -nearest), axis=1)
    chosen = np.take_along_axis(chosen, order, 1)
    found = np.take_along_axis(np.broadcast_to(rows, similarities.shape), chosen, 1)
    return found, np.take_along_axis(nearest, order, 1)
