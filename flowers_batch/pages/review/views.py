"""The views of the review page: which photos it shows, and in which order."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError
from flowers_batch.pages.review.computed_views import ComputedViews
from flowers_batch.pages.review.filters import Filters
from flowers_batch.pages.review.labels import ReviewLabels
from flowers_batch.pages.review.photo_groups import PhotoGroups
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.random_photos import RandomPhotos
from flowers_batch.pages.review.similar_photos import SimilarPhotos

GROUPS = "groups"
UNCERTAIN, SUGGESTIONS, LABEL_ISSUES = "uncertain", "suggestions", "label_issues"
CLASS, LABELLED, FAILED_PHOTOS = "class", "labelled", "failed"
ALL, NEAR_DUPLICATES = "all", "near_duplicates"
VIEWS = {
    UNCERTAIN: "Least confident",
    SUGGESTIONS: "Most useful to label",
    GROUPS: "Groups",
    LABEL_ISSUES: "Possible label errors",
    CLASS: "One class",
    LABELLED: "Labelled here",
    FAILED_PHOTOS: "Failed",
    ALL: "All photos",
    NEAR_DUPLICATES: "Near-duplicates",
}
MAX_ROWS = 100_000  # of a view: more than a person looks at
_RANDOM_PHOTOS = 60  # beside the groups
_PATIENCE = 1.0  # seconds from their start until which an answer waits for groups and random photos


class Views:
    """Selects and orders the photos of an archive.

    Args:
        table: The photos.
        labels: The labels given during the review.
        computed: The views that take long.
        groups: Groups of similar photos.
        similar: Finds near-duplicates.
        random: The photos that are to be labelled for being a random sample.
    """

    def __init__(
        self,
        table: PhotoTable,
        labels: ReviewLabels,
        computed: ComputedViews,
        groups: PhotoGroups,
        similar: SimilarPhotos,
        random: RandomPhotos,
    ):
        self._table, self._labels = table, labels
        self._computed, self._groups, self._similar, self._random = computed, groups, similar, random
        self._shows_codes = table.run.job.kind == CODES

    @property
    def names(self) -> dict[str, str]:
        """The views and what they are called, the one that the page opens first."""
        if self._shows_codes:
            return {GROUPS: VIEWS[GROUPS]} | VIEWS
        return {name: words for name, words in VIEWS.items() if self._groups.are_available or name != GROUPS}

    def prepare(self) -> None:
        """Have the groups and the random photos computed, before the page asks for them."""
        self.groups(Filters(), patience=0)

    def select(self, name: str, filters: Filters = Filters()) -> dict[str, Any]:  # noqa: B008
        """Return the rows of a view, in order.

        Args:
            name: One of `VIEWS`; the groups are shown one after the other.
            filters: What its photos must be.

        Returns:
            `rows`, at most a hundred thousand of the `total`, and those that are `random` ones among them. Possible
            label errors also have `suggested`: label and probability, by row; near-duplicates their `groups` of rows.
            Only `computing`, the current step, while a view that takes long is being computed.

        Raises:
            InputError: There is no such view, or it cannot be made for these photos.
        """
        if name not in VIEWS:
            raise InputError(f"There is no view {name}: choose one of {', '.join(VIEWS)}.")
        if name == GROUPS:
            found = self.groups(filters)
            shown = [row for group in found.get("groups", ()) for row in group["rows"]]
            return found if "computing" in found else _limited(np.array(shown, np.int64))
        labels = self._labels.by_row()
        if name == CLASS and not filters.label:
            return _limited(np.array([], np.int64))
        passes = filters.select(self._table, labels)
        if name in (UNCERTAIN, SUGGESTIONS) and filters.labelled is None:
            passes[[*labels]] = False
        if name == LABEL_ISSUES:
            return self._select_label_issues(labels, passes)
        if name == NEAR_DUPLICATES:
            return self._select_duplicates(passes)
        if name == SUGGESTIONS:
            suggested, step = self._computed.suggestions()
            if suggested is None:
                return {"computing": step}
            rows = np.array(suggested, np.int64)
            return self._with_random(rows[passes[rows]], filters)
        return self._select_in_order(name, labels, passes, filters)

    def _select_in_order(
        self, name: str, labels: dict[int, str], passes: NDArray[np.bool_], filters: Filters
    ) -> dict[str, Any]:
        if name == LABELLED:
            rows = np.array(sorted(labels), np.int64)
            return _limited(rows[passes[rows]])
        if name == ALL:
            return _limited(np.flatnonzero(passes))
        if name == FAILED_PHOTOS:
            return _limited(np.flatnonzero(passes & ~self._table.is_ok))
        passes &= self._table.is_ok
        predictions = self._table.predictions
        if predictions is None:
            return _limited(np.flatnonzero(passes) if name == CLASS else np.array([], np.int64))
        found = _limited(predictions.least_certain(passes, MAX_ROWS), int(passes.sum()))
        return found if name == CLASS else self._with_random(np.array(found["rows"], np.int64), filters, found["total"])

    def _with_random(self, rows: NDArray[np.int_], filters: Filters, total: int | None = None) -> dict[str, Any]:
        """Return rows with random ones among them, where nothing but a random sample of the archive is missing."""
        if not self._shows_codes or not filters.show_whole_archive or filters.labelled:
            return _limited(rows, total)
        mixed, random = self._random.mix_into(rows)
        return _limited(mixed, total and total + len(mixed) - len(rows)) | {"random": random}

    def _select_label_issues(self, labels: dict[int, str], passes: NDArray[np.bool_]) -> dict[str, Any]:
        """Return photos whose training label looks wrong, except those that were given another label here."""
        issues, step = self._computed.label_issues()
        if issues is None:
            return {"computing": step}
        unchanged = {
            row: issue
            for row, issue in issues.items()
            if passes[row] and labels.get(row, issue["label"]) == issue["label"]
        }
        suggested = {row: [issue["suggested"], issue["probability"]] for row, issue in unchanged.items()}
        return _limited(np.array([*unchanged], np.int64)) | {"suggested": suggested}

    def _select_duplicates(self, passes: NDArray[np.bool_]) -> dict[str, Any]:
        groups, step = self._similar.duplicates()
        if groups is None:
            return {"computing": step}
        left = [rows for group in groups if len(rows := [row for row in group if passes[row]]) > 1]
        shown = _first_groups(left)
        return {"rows": [*chain.from_iterable(shown)], "total": sum(map(len, left)), "groups": shown, "random": []}

    def groups(self, filters: Filters, patience: float = _PATIENCE) -> dict[str, Any]:
        """Return groups of similar photos, as `PhotoGroups.select` does, and the next `random` photos.

        Args:
            filters: What the photos must be.
            patience: Seconds from the start of computing each of both until which it waits for them.
        """
        found = self._groups.select(*self._in_groups(filters), patience)
        random = self._random.next(_RANDOM_PHOTOS, patience) if filters.show_whole_archive else []
        return found | ({"computing": "drawing random photos"} if random is None else {"random": random})

    def split(self, number: int, filters: Filters) -> dict[str, Any]:
        """Divide a group in two, and return both, as `PhotoGroups.split` does."""
        return self._groups.split(number, *self._in_groups(filters))

    def _in_groups(self, filters: Filters) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which photos take part, and which of these are shown: a labelled one remains typical of its group."""
        labels = self._labels.by_row()
        return (
            replace(filters, labelled=None).select(self._table, labels),
            filters.select(self._table, labels),
        )


def _limited(rows: NDArray[np.int_], total: int | None = None) -> dict[str, Any]:
    return {"rows": rows[:MAX_ROWS].tolist(), "total": len(rows) if total is None else total, "random": []}


def _first_groups(groups: list[list[int]]) -> list[list[int]]:
    """Return as many groups as have at most `MAX_ROWS` rows together."""
    ends = np.cumsum([len(group) for group in groups])
    return groups[: int(np.searchsorted(ends, MAX_ROWS, side="right"))]
