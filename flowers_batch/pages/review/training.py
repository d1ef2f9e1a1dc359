"""Training from the review page: quick fits while photos are labelled, training again, and the end of the review."""

from __future__ import annotations

from threading import Lock
from typing import Any

from flowers_batch.config import TrainConfig
from flowers_batch.dataset.schema import CODES
from flowers_batch.pages.review.background_fit import BackgroundFit
from flowers_batch.pages.review.finishing import Finishing
from flowers_batch.pages.review.labels import ReviewLabels
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.retraining import Retraining
from flowers_batch.pages.review.training_plan import TrainingPlan
from flowers_batch.pages.review.training_source import TrainingSource


class Training:
    """Trains on the labels given during a review.

    Args:
        table: The photos.
        labels: The labels given during the review.
        source: What training starts from.
        turn: Held by computations that take long, one at a time.
        min_precision: The precision that is wanted of certain labels; None: that of the earlier classifier, or the
            default of `TrainConfig`.
        follow_links: Whether the report shows photos that links lead to, outside the photos' folder.

    Attributes:
        plan: What training is given.
        fit: The classifier that is fitted as labels come; None for predictions, which have one.
        retraining: The training again of the classifier of predictions.
        finishing: The end of the review.

    Raises:
        InputError: `min_precision` is not above 0 and at most 1.
    """

    def __init__(
        self,
        table: PhotoTable,
        labels: ReviewLabels,
        source: TrainingSource,
        turn: Lock,
        *,
        min_precision: float | None,
        follow_links: bool,
    ):
        config = TrainConfig() if min_precision is None else TrainConfig(min_precision=min_precision)
        self.plan = TrainingPlan(table, source, labels.journal.file, min_precision)
        is_codes = table.run.job.kind == CODES
        self.fit = BackgroundFit(table, labels, config.min_precision, turn) if is_codes else None
        self.retraining = Retraining(table, self.plan, source.labels, turn)
        self.finishing = Finishing(table, self.plan, turn, follow_links=follow_links)

    def start_if_due(self) -> None:
        """Start a quick fit if labels have come that it is worth; of predictions, never."""
        if self.fit:
            self.fit.start_if_due()

    def start(self) -> None:
        """Start training now: of codes a quick fit, of predictions the classifier's training again.

        Raises:
            InputError: There are too few labels, or no codes to train on.
        """
        if self.fit:
            self.fit.start()
        else:
            self.retraining.start()

    def status(self) -> dict[str, Any]:
        """Return how far it is: `state` (`idle`, `running`, `done` or `failed`), `step`, `error` and `result`."""
        if self.fit is None:
            return vars(self.retraining.status)
        status = self.fit.status
        state = "running" if status.running else "failed" if status.error else "idle"
        return {"state": state, "step": status.step, "error": status.error, "result": None}

    def close(self) -> None:
        """Stop what runs in a process of its own."""
        self.finishing.close()
