"""What a training run of a review is given, and where its classifier and its predictions go."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import count
from pathlib import Path

from flowers_batch.classifier.model_folder import MODEL, load_model, training_labels
from flowers_batch.config import TrainConfig
from flowers_batch.dataset.job import read_job
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.errors import FlowersError
from flowers_batch.pages.review.photo_table import PhotoTable
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
_MODEL = "model"


class TrainingPlan:
    """How the review's labels are trained on.

    Args:
        table: The photos.
        source: What the training starts from.
        label_file: The file with the labels given during the review.
        min_precision: The precision that is wanted of certain labels; None: that of the earlier classifier, if any.
    """

    def __init__(self, table: PhotoTable, source: TrainingSource, label_file: Path, min_precision: float | None = None):
        self._run, self._source = table.run, source
        self._label_file = str(label_file)
        self._min_precision = min_precision

    @property
    def codes(self) -> str:
        """The codes folder to train on; empty if there is none."""
        return self._source.codes

    @property
    def unavailable(self) -> str:
        """Why there are no codes to train on; empty if there are."""
        return self._source.unavailable

    @cached_property
    def model(self) -> str:
        """The folder of the new model: none that something else than a review of the same labels has made."""
        if self._run.job.kind == CODES:
            return next(url for url in _beside(self._run.folder.url, _MODEL) if self._may_replace_model(url))
        if self._source.model and self._source.url:
            return next_folder(self._source.url)
        return next_folder(f"{self._run.folder.url.rstrip('/')}-model")

    @cached_property
    def predictions(self) -> str:
        """The folder of the predictions by that model."""
        if self._run.job.kind == CODES:
            candidates = _beside(self._run.folder.url, PREDICTIONS)
            return next(url for url in candidates if self._may_replace_predictions(url))
        return next_folder(self._run.folder.url)

    def _may_replace_model(self, url: str) -> bool:
        from flowers_batch.classifier.label_sources import absolute_labels

        folder = open_folder(url)
        if not folder.exists(MODEL):
            return not folder.exists() or folder.is_missing()
        try:
            return load_model(url).training.get("labels") == [absolute_labels(self._label_file)]
        except FlowersError:  # it is damaged, or another version's
            return False

    def _may_replace_predictions(self, url: str) -> bool:
        folder = open_folder(url)
        if not folder.exists() or folder.is_missing():
            return True
        try:
            job = read_job(folder)
        except FlowersError:
            return False
        return job is not None and job.kind == PREDICTIONS and job.model == open_folder(self.model).url

    @property
    def label_files(self) -> list[str]:
        """The files of labels, those given during the review last: they take precedence."""
        model, url = self._source.model, self._source.url
        before = training_labels(open_folder(url), model) if model and url else ()
        return [*(name for name in before if name != self._label_file), self._label_file]

    def config(self) -> TrainConfig:
        """Return how the classifier is trained: as the earlier one was."""
        before = self._source.model.training if self._source.model else {}
        settings = {name: before[name] for name in _KEPT_SETTINGS if name in before}
        config = TrainConfig(labels=tuple(self.label_files), **settings)
        return config if self._min_precision is None else replace(config, min_precision=self._min_precision)

    def commands(self) -> list[str]:
        """Return the commands that train the same classifier and predict with it; empty if that is not possible."""
        if not self.codes:
            return []
        train = ["flowers-batch", "train", self.codes, self.model]
        for name in self.label_files:
            train += ["--labels", name]
        if self._min_precision is not None:
            train += ["--min-precision", str(self._min_precision)]
        predict = ["flowers-batch", "predict", self.codes, self.predictions, "--model", self.model]
        return [shlex.join(train), shlex.join(predict)]


def next_folder(url: str) -> str:
    """Return the name that follows a folder's: `model`, `model-corrected`, `model-corrected-2` and so on."""
    base, number = _CORRECTED.fullmatch(url.rstrip("/")).groups()  # type: ignore[union-attr]
    if base == url.rstrip("/"):
        return f"{base}-corrected"
    return f"{base}-corrected-{int(number or 1) + 1}"


def _beside(codes: str, name: str) -> Iterator[str]:
    """Yield names of folders beside a codes folder: `model`, `model-2` and so on beside `codes`, else `NAME-model`."""
    parent, own = posixpath.split(codes.rstrip("/"))
    base = f"{parent}/{name}" if own == CODES else f"{codes.rstrip('/')}-{name}"
    yield base
    for number in count(2):
        yield f"{base}-{number}"
