"""Training again from the review page, in a background thread."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.classifier.evaluation import wilson_interval
from flowers_batch.classifier.model_folder import read_split, training_labels
from flowers_batch.classifier.training import train
from flowers_batch.config import TrainConfig
from flowers_batch.errors import FlowersError, InputError
from flowers_batch.pages.review.computation import WAITING, StepReporter
from flowers_batch.pages.review.predictions import PredictionTable
from flowers_batch.pages.review.training_source import TrainingSource
from flowers_batch.storage.opening import open_folder

_CORRECTED = re.compile(r"(.*?)(?:-corrected(?:-([0-9]+))?)?", re.DOTALL)
_KEPT_SETTINGS = (
    "head",
    "min_precision",
    "min_photos_per_class",
    "max_memory_mb",
    "seed",
)  # of the classifier that is trained again


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
        source: What the training starts from.
        label_file: The file with the labels given during the review.
        turn: Held while it trains.

    Attributes:
        status: Of the latest training run.
    """

    def __init__(self, table: PredictionTable, source: TrainingSource, label_file: Path, turn: Lock):
        self._table, self._source, self._turn = table, source, turn
        self._label_file = str(label_file)
        self._lock = Lock()  # of the status
        self.status = TrainingStatus()

    def commands(self) -> list[str]:
        """Return the commands that train the same classifier and predict with it; empty if that is not possible."""
        codes, target = self._source.codes, self._target
        if not codes:
            return []
        train = ["flowers-batch", "train", codes, target]
        for name in self._label_files:
            train += ["--labels", name]
        out = next_folder(self._table.run.folder.url)
        return [shlex.join(train), shlex.join(["flowers-batch", "predict", codes, out, "--model", target])]

    @property
    def _target(self) -> str:
        """The folder of the new model, which is never one that existed before this review."""
        run = self._table.run
        if self._source.model and self._source.url:
            return next_folder(self._source.url)
        return next_folder(f"{run.folder.url.rstrip('/')}-model")

    @property
    def _label_files(self) -> list[str]:
        model, url = self._source.model, self._source.url
        before = training_labels(open_folder(url), model) if model and url else ()
        return [*(name for name in before if name != self._label_file), self._label_file]

    def start(self) -> None:
        """Start a training run in a background thread, unless one is running.

        Raises:
            InputError: There are no codes to train on.
        """
        if not self._source.codes:
            raise InputError(f"Training is not possible here: {self._source.unavailable}")
        with self._lock:
            if self.status.state == "running":
                return
            self.status = TrainingStatus("running", WAITING)
        Thread(target=self._train, args=(self.status,), daemon=True).start()

    def _train(self, status: TrainingStatus) -> None:
        before = self._source.model.training if self._source.model else {}
        settings = {name: before[name] for name in _KEPT_SETTINGS if name in before}
        try:
            with self._turn:
                status.step = "reading labels"
                config = TrainConfig(labels=tuple(self._label_files), **settings)
                metrics = train(self._source.codes, self._target, config, reporter=StepReporter(status))
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
        split = read_split(open_folder(self._target), ["path", "label", "prediction", "split"])
        split = split.filter(pc.equal(split["split"], "test"))
        rows = self._table.rows_of(split["path"])
        is_common = (rows >= 0) & self._source.labels.were_held_out(rows)
        common, before = split.filter(pa.array(is_common)), self._table.predictions_of(rows[is_common])
        right_before, right_after = (
            pc.sum(pc.equal(each, common["label"]), min_count=0).as_py() for each in (before, common["prediction"])
        )
        return {
            "photos": len(common),
            "before": right_before / len(common) if len(common) else None,
            "after": right_after / len(common) if len(common) else None,
            "after_interval95": wilson_interval(right_after, len(common)) if len(common) else None,
            "unknown_paths": metrics["unknown_paths"],
            "model": self._target,
        }


def next_folder(url: str) -> str:
    """Return the name that follows a folder's: `model`, `model-corrected`, `model-corrected-2` and so on."""
    base, number = _CORRECTED.fullmatch(url.rstrip("/")).groups()  # type: ignore[union-attr]
    if base == url.rstrip("/"):
        return f"{base}-corrected"
    return f"{base}-corrected-{int(number or 1) + 1}"
