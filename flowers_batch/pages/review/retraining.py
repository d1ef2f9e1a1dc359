"""Training again from the review page, in a background thread."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock, Thread
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.classifier.evaluation import wilson_interval
from flowers_batch.classifier.model_folder import read_split
from flowers_batch.classifier.training import train
from flowers_batch.errors import FlowersError, InputError
from flowers_batch.pages.review.computation import WAITING, StepReporter
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.training_plan import TrainingPlan
from flowers_batch.pages.review.training_source import TrainingLabels
from flowers_batch.storage.opening import open_folder


@dataclass
class TrainingStatus:
    """The status of a training run, as the page shows it.

    Attributes:
        state: `idle`, `running`, `done` or `failed`.
        step: What is being done.
        error: Why it failed.
        result: Of a training run that is done: accuracy before and after, and the model's folder.
    """

    state: str = "idle"
    step: str = ""
    error: str = ""
    result: dict[str, Any] | None = None


class Retraining:
    """Trains a classifier on the original labels and those given during the review, which take precedence.

    Args:
        table: The predictions.
        plan: What the training is given.
        labels: The labels that the classifier of the predictions was trained on.
        turn: Held while it trains.

    Attributes:
        status: Of the latest training run.
    """

    def __init__(self, table: PhotoTable, plan: TrainingPlan, labels: TrainingLabels, turn: Lock):
        self._table, self._plan, self._labels, self._turn = table, plan, labels, turn
        self._before = table.predictions  # whose accuracy the new one is compared with
        self._lock = Lock()  # of the status
        self.status = TrainingStatus()

    def start(self) -> None:
        """Start a training run in a background thread, unless one is running.

        Raises:
            InputError: There are no codes to train on.
        """
        if not self._plan.codes:
            raise InputError(f"Training is not possible here: {self._plan.unavailable}")
        with self._lock:
            if self.status.state == "running":
                return
            self.status = TrainingStatus("running", WAITING)
        Thread(target=self._train, args=(self.status,), daemon=True).start()

    def _train(self, status: TrainingStatus) -> None:
        try:
            with self._turn:
                status.step = "reading labels"
                metrics = train(self._plan.codes, self._plan.model, self._plan.config(), reporter=StepReporter(status))
                status.result = self._compare(metrics)
            status.state = "done"
        except FlowersError as error:
            status.state, status.error = "failed", str(error)
        except Exception as error:
            status.state, status.error = "failed", f"The training failed: {error!r}."

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
