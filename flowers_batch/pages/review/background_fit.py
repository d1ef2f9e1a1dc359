"""A classifier that is fitted in the background while photos are being labelled."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from flowers_batch.classifier.enough_labels import can_fit
from flowers_batch.errors import FlowersError, InputError
from flowers_batch.pages.review.computation import WAITING, StepReporter
from flowers_batch.pages.review.labels import ReviewLabels
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.predictions import Predictions

if TYPE_CHECKING:
    from flowers_batch.classifier.labelling import LabelFit

_CHANGED = 25  # photos whose labels have changed since the last fit
_SEED = 0


@dataclass
class FitStatus:
    """The fits of a review, as the page shows them.

    Attributes:
        number: How many were finished.
        labels: To how many labels the last one was fitted.
        running: Whether another one is being fitted.
        step: What is being done.
        error: Why the last one failed.
        accuracy: Of the last one, estimated on photos that were chosen at random: `value`, `interval95` and `photos`;
            None if these are too few.
        random_needed: How many more of these it takes.
        certain: The `share` of the archive, and its `photos`, whose labels have the `precision` that is wanted; None if
            none can be promised.
    """

    number: int = 0
    labels: int = 0
    running: bool = False
    step: str = ""
    error: str = ""
    accuracy: dict[str, Any] | None = None
    random_needed: int = 0
    certain: dict[str, Any] | None = None


class BackgroundFit:
    """Fits a classifier to the labels as they come, and has it predict the whole archive.

    Args:
        table: The photos of a codes folder; gets the predictions.
        labels: The labels given during the review.
        min_precision: The precision that is wanted of certain labels.
        turn: Held by computations that take long, one at a time.

    Attributes:
        status: What the page shows.
    """

    def __init__(self, table: PhotoTable, labels: ReviewLabels, min_precision: float, turn: Lock):
        self._table, self._labels, self._min_precision, self._turn = table, labels, min_precision, turn
        self.status = FitStatus()
        self._lock = Lock()  # of whether one is running, and of the following
        self._fitted_at: int | None = None  # `labels.changed` when the last one was started
        self._is_wanted = False  # whether another one is to follow

    def state(self) -> dict[str, Any]:
        """Return the status as JSON, with the precision that is wanted."""
        return asdict(self.status) | {"wanted_precision": self._min_precision}

    def start_if_due(self) -> None:
        """Start a fit in the background if there are enough labels, and enough of them are new; else do nothing."""
        with self._lock:
            if not self.status.running and self._is_due():
                self._start()

    def start(self) -> None:
        """Start a fit in the background; if one is running, another one follows it for labels that it has not seen.

        Raises:
            InputError: There are too few labels.
        """
        if not can_fit(self._labels.counts()):
            raise InputError("There are too few labels: label five photos of each of two classes.")
        with self._lock:
            if self.status.running:
                self._is_wanted = self._fitted_at != self._labels.changed
            else:
                self._start()

    def _is_due(self) -> bool:
        new = None if self._fitted_at is None else self._labels.changed - self._fitted_at
        return (new is None or new >= _CHANGED) and can_fit(self._labels.counts())

    def _start(self) -> None:
        self._fitted_at, self._is_wanted = self._labels.changed, False
        self.status.running, self.status.step, self.status.error = True, WAITING, ""
        Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        error = ""
        try:
            with self._turn:
                self._fit()
        except FlowersError as failure:
            error = str(failure)
        except Exception as failure:
            error = f"The classifier could not be fitted: {failure!r}."
        with self._lock:
            self.status.running, self.status.step, self.status.error = False, "", error
            if not error and (self._is_wanted or self._is_due()):
                self._start()

    def _fit(self) -> None:
        from flowers_batch.classifier.labelling import fit_labels, predict_run

        labels, chosen, changed = self._labels.by_path()
        with self._lock:
            self._fitted_at = changed
        run, reporter = self._table.run, StepReporter(self.status)
        fit = fit_labels(run, labels, chosen, min_precision=self._min_precision, seed=_SEED, reporter=reporter)
        found = predict_run(run, fit.head, reporter)
        number = self.status.number + 1
        self._table.predictions = Predictions(
            fit.head.classes, found.labels, found.probabilities, found.margins, fit.head, number
        )
        self.status.labels, self.status.random_needed = fit.labels, fit.random_needed
        self.status.accuracy = asdict(fit.accuracy) if fit.accuracy else None
        self.status.certain = self._certain(fit)
        self.status.number = number

    def _certain(self, fit: LabelFit) -> dict[str, Any] | None:
        predictions = self._table.predictions
        if fit.certain_at is None or predictions is None:
            return None
        is_certain = predictions.probabilities[self._table.is_ok] >= fit.certain_at
        photos = int(is_certain.sum())
        return {"share": photos / len(is_certain), "precision": self._min_precision, "photos": photos}
