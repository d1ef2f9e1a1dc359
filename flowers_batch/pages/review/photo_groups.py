"""Groups of similar photos, each of which a person can label with one key."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.errors import InputError
from flowers_batch.pages.review.archive_codes import ArchiveCodes
from flowers_batch.pages.review.computation import Computation
from flowers_batch.progress import Reporter
from flowers_batch.search.groups import group_photos, split_group, typical_rows

_MAX_SHOWN = 60  # photos of a group: as many as a person looks at before pressing a key
_MAX_GROUPS = 1000  # in an answer


class PhotoGroups:
    """Groups of the archive's photos, and those that came of splitting them.

    Args:
        codes: The archive's codes.
        turn: Held by computations that take long, one at a time.
    """

    def __init__(self, codes: ArchiveCodes, turn: Lock):
        self._codes = codes
        self._computed = Computation(self._compute, turn)
        self._turn_to_split = Lock()  # one group at a time, and without waiting for what takes longer
        self._lock = Lock()  # of everything below
        self._splits: dict[int, Computation[dict[int, NDArray[np.int_]]]] = {}  # by the id of the group
        self._by_id: dict[int, NDArray[np.int_]] | None = None  # rows in the codes folder, in the page's order
        self._ids = 0

    @property
    def are_available(self) -> bool:
        """Whether there are codes to group photos by."""
        return self._codes.are_known

    def _compute(self, reporter: Reporter) -> bool:
        groups = group_photos(self._codes.run, reporter=reporter).rows
        with self._lock:
            self._by_id = dict(enumerate(groups))
            self._ids = len(groups)
        return True

    def select(self, passes: NDArray[np.bool_], is_left: NDArray[np.bool_], patience: float = 0.0) -> dict[str, Any]:
        """Return the groups, in order.

        Args:
            passes: bool [rows]: whether a photo takes part.
            is_left: bool [rows]: whether it is shown. A group whose typical photos are all left out is not shown.
            patience: As for `Computation.result`.

        Returns:
            `groups`: `id`, `size` and `rows` of each: those of its typical photos that are shown, nearest to its centre
            first. `total` of them. Only `computing`, the current step, while they are computed.

        Raises:
            InputError: There are no codes.
        """
        _ = self._codes.run  # or the error
        if not self._computed.result("of these codes", patience):
            return {"computing": self._computed.step}
        with self._lock:
            by_id = dict(self._by_id or {})
        described = (self._describe(number, rows, passes, is_left) for number, rows in by_id.items())
        groups = [group for group in described if group["rows"]]
        return {"groups": groups[:_MAX_GROUPS], "total": len(groups)}

    def _describe(
        self, number: int, codes_rows: NDArray[np.int_], passes: NDArray[np.bool_], is_left: NDArray[np.bool_]
    ) -> dict[str, Any]:
        rows = self._codes.photos_of_rows(codes_rows)
        rows = rows[rows >= 0]
        rows = rows[passes[rows]]
        typical = typical_rows(rows)[:_MAX_SHOWN]
        return {"id": number, "size": len(rows), "rows": typical[is_left[typical]].tolist()}

    def split(self, number: int, passes: NDArray[np.bool_], is_left: NDArray[np.bool_]) -> dict[str, Any]:
        """Divide a group in two, which take its place.

        Args:
            number: Its id.
            passes, is_left: As for `select`.

        Returns:
            `groups`: both, as `select` returns them. Only `computing`, the current step, while they are computed.

        Raises:
            InputError: There is no such group, or it has one photo.
        """
        computed = self._split_of(number)
        new = computed.result(number)
        if new is None:
            return {"computing": computed.step}
        with self._lock:
            self._splits.pop(number, None)
        return {"groups": [self._describe(each, rows, passes, is_left) for each, rows in new.items()]}

    def _split_of(self, number: int) -> Computation[dict[int, NDArray[np.int_]]]:
        with self._lock:
            if number not in self._splits:
                whole = (self._by_id or {}).get(number)
                if whole is None:
                    raise InputError(f"There is no group {number}: reload the page.")
                self._splits[number] = Computation(
                    lambda reporter: self._replace(number, split_group(self._codes.run, whole, reporter)),
                    self._turn_to_split,
                )
            return self._splits[number]

    def _replace(self, number: int, halves: Sequence[NDArray[np.int_]]) -> dict[int, NDArray[np.int_]]:
        """Put the halves of a group in its place; return them by their ids."""
        with self._lock:
            new = dict(enumerate(halves, self._ids))
            self._ids += len(new)
            parts = (new if each == number else {each: rows} for each, rows in (self._by_id or {}).items())
            self._by_id = {each: rows for part in parts for each, rows in part.items()}
            return new
