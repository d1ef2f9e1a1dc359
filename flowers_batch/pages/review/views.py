"""The views of the review page: which photos it shows, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.suggestions import label_issues, suggest
from flowers_batch.errors import InputError
from flowers_batch.pages.review.labels import ReviewLabels
from flowers_batch.pages.review.predictions import PredictionTable
from flowers_batch.pages.review.training_source import TrainingSource

UNCERTAIN, SUGGESTIONS, LABEL_ISSUES = "uncertain", "suggestions", "label_issues"
CLASS, LABELLED, FAILED_PHOTOS = "class", "labelled", "failed"
VIEWS = {
    UNCERTAIN: "Least confident",
    SUGGESTIONS: "Most useful to label",
    LABEL_ISSUES: "Possible label errors",
    CLASS: "One class",
    LABELLED: "Labelled here",
    FAILED_PHOTOS: "Failed",
}
_MAX_ROWS = 100_000  # of a view: more than a person looks at
_SUGGESTIONS = 500


class Views:
    """Selects and orders the rows of predictions.

    Args:
        table: The predictions.
        labels: The labels given during the review.
        source: What the classifier was trained on.
    """

    def __init__(self, table: PredictionTable, labels: ReviewLabels, source: TrainingSource):
        self._table, self._labels, self._source = table, labels, source

    def select(self, name: str, label: str = "") -> dict[str, Any]:
        """Return the rows of a view, in order.

        Args:
            name: One of `VIEWS`.
            label: Of the view `class`: the class.

        Returns:
            `rows`, at most a hundred thousand of the `total`. Possible label errors also have `suggested`: label and
            probability, by row.

        Raises:
            InputError: There is no such view, or it cannot be made for these predictions.
        """
        if name not in VIEWS:
            raise InputError(f"There is no view {name}: choose one of {', '.join(VIEWS)}.")
        if name == SUGGESTIONS:
            found = suggest(self._table.run.folder.url, _SUGGESTIONS, labels=[str(self._labels.journal.file)])
            return _limited([*self._table.find(row["path"] for row in found).values()])
        labels = self._labels.by_row()
        if name == LABEL_ISSUES:
            return self._label_issues(labels)
        if name == LABELLED:
            return _limited(sorted(labels))
        if name == FAILED_PHOTOS:
            return _limited(np.flatnonzero(~self._table.is_ok()))
        labelled = np.array(sorted(labels), np.int64)
        if name == CLASS:
            is_chosen = self._table.is_predicted_as(label).copy()
            is_chosen[labelled] = [labels[row] == label for row in labelled.tolist()]
        else:
            is_chosen = self._table.is_ok().copy()
            is_chosen[labelled] = False
        return _limited(self._table.by_confidence(is_chosen))

    def _label_issues(self, labels: dict[int, str]) -> dict[str, Any]:
        """Return photos whose training label looks wrong, except those that were given another label here."""
        if self._source.model is None or not self._source.codes:
            raise InputError(f"Label errors cannot be found here: {self._source.unavailable}")
        found = {row["path"]: row for row in label_issues(self._table.run.job.model or "")}
        issues = {row: found[path] for path, row in self._table.find(found).items()}
        unchanged = {row: issue for row, issue in issues.items() if labels.get(row, issue["label"]) == issue["label"]}
        suggested = {row: [issue["suggested"], issue["probability"]] for row, issue in unchanged.items()}
        return _limited([*unchanged]) | {"suggested": suggested}


def _limited(rows: Sequence[int] | NDArray[np.int_]) -> dict[str, Any]:
    return {"rows": [int(row) for row in rows[:_MAX_ROWS]], "total": len(rows)}
