"""The views of the review page: which photos it shows, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from flowers_batch.classifier.label_issues import label_issues
from flowers_batch.classifier.suggestions import suggest
from flowers_batch.errors import InputError
from flowers_batch.pages.review.computation import Computation
from flowers_batch.pages.review.labels import ReviewLabels
from flowers_batch.pages.review.predictions import PredictionTable
from flowers_batch.pages.review.training_source import TrainingSource
from flowers_batch.progress import Reporter

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
MAX_ROWS = 100_000  # of a view: more than a person looks at
_SUGGESTIONS = 500


class Views:
    """Selects and orders the rows of predictions.

    Args:
        table: The predictions.
        labels: The labels given during the review.
        source: What the classifier was trained on.
        turn: Held by computations that take long, one at a time.
    """

    def __init__(self, table: PredictionTable, labels: ReviewLabels, source: TrainingSource, turn: Lock):
        self._table, self._labels, self._source = table, labels, source
        # Computed once: these depend on the training, and on the training and the labels given since.
        self._label_issues = Computation(self._find_label_issues, turn)
        self._suggestions = Computation(self._find_suggestions, turn)

    def select(self, name: str, label: str = "") -> dict[str, Any]:
        """Return the rows of a view, in order.

        Args:
            name: One of `VIEWS`.
            label: Of the view `class`: the class.

        Returns:
            `rows`, at most a hundred thousand of the `total`. Possible label errors also have `suggested`: label and
            probability, by row. Only `computing`, the current step, while a view that takes long is being computed.

        Raises:
            InputError: There is no such view, or it cannot be made for these predictions.
        """
        if name not in VIEWS:
            raise InputError(f"There is no view {name}: choose one of {', '.join(VIEWS)}.")
        if name == SUGGESTIONS:
            suggestions = self._suggestions.result(self._labels.changes)
            return {"computing": self._suggestions.step} if suggestions is None else _limited(suggestions)
        labels = self._labels.by_row()
        if name == LABEL_ISSUES:
            return self._select_label_issues(labels)
        if name == LABELLED:
            return _limited(sorted(labels))
        if name == FAILED_PHOTOS:
            failed = np.flatnonzero(~self._table.is_ok)
            return {"rows": failed[:MAX_ROWS].tolist(), "total": len(failed)}
        labelled = np.array(sorted(labels), np.int64)
        if name == CLASS:
            is_chosen = self._table.is_predicted_as(label)
            is_chosen[labelled] = [labels[row] == label for row in labelled.tolist()]
        else:
            is_chosen = self._table.is_ok.copy()
            is_chosen[labelled] = False
        rows = self._table.least_confident(is_chosen, MAX_ROWS)
        return {"rows": rows.tolist(), "total": int(is_chosen.sum())}

    def _find_suggestions(self, reporter: Reporter) -> list[int]:
        run = self._table.run
        places = {name: run.given.get(name) for name in ("model", "codes")}
        labels = [str(self._labels.journal.file)]
        found = suggest(run.folder.url, _SUGGESTIONS, labels=labels, reporter=reporter, **places)
        return [*self._table.find(row["path"] for row in found).values()]

    def _find_label_issues(self, reporter: Reporter) -> dict[int, dict[str, Any]]:
        rows = label_issues(self._source.url or "", codes=self._source.codes, reporter=reporter)
        found = {row["path"]: row for row in rows}
        return {row: found[path] for path, row in self._table.find(found).items()}

    def _select_label_issues(self, labels: dict[int, str]) -> dict[str, Any]:
        """Return photos whose training label looks wrong, except those that were given another label here."""
        if self._source.model is None or not self._source.codes:
            raise InputError(f"Label errors cannot be found here: {self._source.unavailable}")
        issues = self._label_issues.result("of this training")
        if issues is None:
            return {"computing": self._label_issues.step}
        unchanged = {row: issue for row, issue in issues.items() if labels.get(row, issue["label"]) == issue["label"]}
        suggested = {row: [issue["suggested"], issue["probability"]] for row, issue in unchanged.items()}
        return _limited([*unchanged]) | {"suggested": suggested}


def _limited(rows: Sequence[int]) -> dict[str, Any]:
    return {"rows": rows[:MAX_ROWS], "total": len(rows)}
