"""Photos that are similar to others, by their codes; and near-duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from flowers_batch.errors import InputError
from flowers_batch.pages.review.archive_codes import ArchiveCodes
from flowers_batch.pages.review.computation import Computation
from flowers_batch.pages.review.memory import check_memory_for_duplicates
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.progress import Reporter

if TYPE_CHECKING:
    from flowers_batch.search.similar import CodeSearch

MAX_SIMILAR = 1000  # photos in an answer
MAX_QUERIES = 100  # photos that others are to be similar to


class SimilarPhotos:
    """Searches the archive's codes.

    Args:
        table: The photos.
        codes: Their codes.
        turn: Held by computations that take long, one at a time.
    """

    def __init__(self, table: PhotoTable, codes: ArchiveCodes, turn: Lock):
        self._table, self._codes = table, codes
        self._search = Computation(self._prepare_search, turn)
        self._duplicates = Computation(self._find_duplicates, turn)

    def nearest(self, rows: Sequence[int], count: int) -> dict[str, Any]:
        """Return the photos nearest to some, without these.

        Args:
            rows: Of several, the mean of their codes counts; at most `MAX_QUERIES`.
            count: How many, at most `MAX_SIMILAR`.

        Returns:
            `rows`, the nearest first, and their `similarities`, -1 to 1. Only `computing`, the current step, while the
            search is being prepared.

        Raises:
            InputError: There is no such photo or no code, or there are too many.
        """
        if not 0 < len(rows) <= MAX_QUERIES:
            raise InputError(f"Choose 1 to {MAX_QUERIES} photos. Received: {len(rows)}.")
        if not 0 < count <= MAX_SIMILAR:
            raise InputError(f"`count` must be from 1 to {MAX_SIMILAR}. Received: {count}.")
        for row in rows:
            self._table.check(row)
        run = self._codes.run
        queries = self._codes.rows_of_photos(np.array([row for row in rows if self._table.is_ok[row]], np.int64))
        queries = queries[queries >= 0]
        if not len(queries):
            raise InputError("These photos have no code, by which others could be similar to them.")
        search = self._search.result(run.folder.url)
        if search is None:
            return {"computing": self._search.step}
        found, similarities = search.nearest_to_rows(queries.tolist(), count)
        photos = self._codes.photos_of_rows(found)
        is_known = photos >= 0
        return {"rows": photos[is_known].tolist(), "similarities": similarities[is_known].round(4).tolist()}

    def duplicates(self) -> tuple[list[list[int]] | None, str]:
        """Return groups of near-duplicates (None while they are computed), the one to keep first; and the step."""
        return self._duplicates.result("of this archive"), self._duplicates.step

    def _prepare_search(self, reporter: Reporter) -> CodeSearch:
        from flowers_batch.search.similar import CodeSearch

        return CodeSearch(self._codes.run, reporter)

    def _find_duplicates(self, reporter: Reporter) -> list[list[int]]:
        from flowers_batch.search.duplicates import near_duplicates

        run = self._codes.run if self._codes.are_known else self._table.run
        check_memory_for_duplicates(run)
        groups = near_duplicates(run, reporter)
        if not self._codes.are_known:
            return groups
        photos = (self._codes.photos_of_rows(np.array(group)) for group in groups)
        known = [rows[rows >= 0].tolist() for rows in photos]
        return [rows for rows in known if len(rows) > 1]
