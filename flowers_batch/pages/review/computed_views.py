"""Views of the review page that take long to compute: the photos most worth a label, and possible label errors."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np

from flowers_batch.classifier.labelled_codes import CodesOnDisk
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError
from flowers_batch.pages.review.computation import Computation
from flowers_batch.pages.review.labels import ReviewLabels
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.training_source import TrainingSource
from flowers_batch.progress import Reporter

_SUGGESTIONS = 500
_CHANGES = 100  # labelled photos after which suggestions without a new classifier are out of date
_SEED = 0


class ComputedViews:
    """Computes views in the background, each only once for the same labels or the same classifier.

    Args:
        table: The photos.
        labels: The labels given during the review.
        source: What the classifier was trained on.
        turn: Held by computations that take long, one at a time.
    """

    def __init__(self, table: PhotoTable, labels: ReviewLabels, source: TrainingSource, turn: Lock):
        self._table, self._labels, self._source = table, labels, source
        self._shows_codes = table.run.job.kind == CODES
        self._suggestions = Computation(self._suggest_codes if self._shows_codes else self._suggest, turn)
        self._label_issues = Computation(self._find_label_issues, turn)

    def suggestions(self) -> tuple[list[int] | None, str]:
        """Return the rows that are most worth a label; None while they are computed, and the current step."""
        labels = self._labels
        version = (self._fit_number, labels.changed // _CHANGES) if self._shows_codes else labels.changes
        return self._suggestions.result(version), self._suggestions.step

    def label_issues(self) -> tuple[dict[int, dict[str, Any]] | None, str]:
        """Return labels that are probably wrong, as `label_issues` does, by row; None while they are computed.

        Returns:
            Them, and the current step.

        Raises:
            InputError: There is nothing to judge labels by.
        """
        if not self._shows_codes and (self._source.model is None or not self._source.codes):
            raise InputError(f"Label errors cannot be found here: {self._source.unavailable}")
        if self._shows_codes and not self._fit_number:
            raise InputError("Label errors can be found once there is a classifier: label more photos first.")
        return self._label_issues.result(self._fit_number), self._label_issues.step

    @property
    def _fit_number(self) -> int:
        predictions = self._table.predictions
        return 0 if predictions is None else predictions.number

    def _suggest(self, reporter: Reporter) -> list[int]:
        from flowers_batch.classifier.suggestions import suggest

        run = self._table.run
        places = {name: run.given.get(name) for name in ("model", "codes")}
        labels = [str(self._labels.journal.file)]
        found = suggest(run.folder.url, _SUGGESTIONS, labels=labels, reporter=reporter, **places)
        return [*self._table.find(row["path"] for row in found).values()]

    def _suggest_codes(self, reporter: Reporter) -> list[int]:
        """Do what `suggest` does, by the predictions of the classifier that was fitted here last."""
        from flowers_batch.classifier.suggestions import MAX_CANDIDATES, choose_useful

        is_left = self._table.is_ok.copy()
        is_left[[*self._labels.by_row()]] = False
        rows = np.flatnonzero(is_left)
        if len(rows) > MAX_CANDIDATES:
            rows = np.random.default_rng(_SEED).choice(rows, MAX_CANDIDATES, replace=False)
        predictions = self._table.predictions
        margins = None if predictions is None else predictions.margins
        if margins is not None:
            rows = rows[np.argsort(margins[rows], kind="stable")][: max(_SUGGESTIONS, len(rows) // 2)]
        if not len(rows):
            return []
        rows = np.sort(rows)
        margins = None if margins is None else margins[rows]
        codes = CodesOnDisk(self._table.run, rows, 0)
        return rows[choose_useful(codes, len(rows), margins, _SUGGESTIONS, reporter)].tolist()

    def _find_label_issues(self, reporter: Reporter) -> dict[int, dict[str, Any]]:
        from flowers_batch.classifier.label_issues import issues_among, label_issues

        if self._shows_codes:
            rows = issues_among(self._table.run, [str(self._labels.journal.file)], reporter=reporter)
        else:
            rows = label_issues(self._source.url or "", codes=self._source.codes, reporter=reporter)
        found = {row["path"]: row for row in rows}
        return {row: found[path] for path, row in self._table.find(found).items()}
