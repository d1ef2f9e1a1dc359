"""Training again from the review page, in a background thread."""

from __future__ import annotations

from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.classifier.evaluation import wilson_interval
from flowers_batch.classifier.model_folder import read_split
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.training_plan import TrainingPlan
from flowers_batch.pages.review.training_source import TrainingLabels
from flowers_batch.pages.review.training_task import TrainingTask
from flowers_batch.progress import Progress, Reporter
from flowers_batch.storage.opening import open_folder


class Retraining(TrainingTask):
    """Trains a classifier on the original labels and those given during the review, which take precedence.

    Args:
        table: The predictions.
        plan: What the training is given.
        labels: The labels that the classifier of the predictions was trained on.
        turn: Held while it trains.
    """

    def __init__(self, table: PhotoTable, plan: TrainingPlan, labels: TrainingLabels, turn: Lock):
        super().__init__(plan, turn, "The training failed")
        self._table, self._labels = table, labels
        self._before = table.predictions  # whose accuracy the new one is compared with

    def work(self, reporter: Reporter) -> dict[str, Any]:
        """Return the accuracy before and after, and the model's folder."""
        from flowers_batch.classifier.training import train

        reporter.update(Progress("reading labels"))
        return self._compare(train(self._plan.codes, self._plan.model, self._plan.config(), reporter=reporter))

    def _compare(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Return the accuracy before and after.

        Both are measured by the current labels, on photos that neither classifier was trained or validated on.
        """
        split = read_split(open_folder(self._plan.model), ["path", "label", "prediction", "split"])
        split = split.filter(pc.equal(split["split"], "test"))
        rows = self._table.rows_of(split["path"])
        is_common = (rows >= 0) & self._labels.were_held_out(rows)
        common = split.filter(pa.array(is_common))
        before = self._before.labels_of(rows[is_common]) if self._before else pa.nulls(len(common), pa.string())
        right_before, right_after = (
            pc.sum(pc.equal(each, common["label"]), min_count=0).as_py() for each in (before, common["prediction"])
        )
        return {
            "photos": len(common),
            "before": right_before / len(common) if len(common) else None,
            "after": right_after / len(common) if len(common) else None,
            "after_interval95": wilson_interval(right_after, len(common)) if len(common) else None,
            "unknown_paths": metrics["unknown_paths"],
            "model": self._plan.model,
        }
