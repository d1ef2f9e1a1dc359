"""What the review page shows and does: photos in the order that a person asks for, labels, and a training anew."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import BoundedSemaphore, Lock, Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowers_batch.candidates import next_labels, suspects
from flowers_batch.config import FlowersError, InputError, TrainConfig
from flowers_batch.dataset import CODES, OK, PREDICTIONS, Run, open_run, read_shard
from flowers_batch.evaluation import wilson_interval
from flowers_batch.heads import MODEL, SPLIT, Model, load_model
from flowers_batch.journal import Journal
from flowers_batch.progress import heard_by
from flowers_batch.sources import Image, ReadError
from flowers_batch.storage import Where, open_folder
from flowers_batch.thumbnails import Photos
from flowers_batch.training import train

UNCERTAIN, DIFFERENT, SUSPECTS = "uncertain", "different", "suspects"
CLASS, LABELLED, FAILED = "class", "labelled", "failed"
VIEWS = {
    UNCERTAIN: "Least certain",
    DIFFERENT: "Most worth a label",
    SUSPECTS: "Labels that look wrong",
    CLASS: "One class",
    LABELLED: "Labelled here",
    FAILED: "Failed",
}
_MOST = 100_000  # photos of a view: more than one looks at
_DIFFERENT = 500
_COLUMNS = ["path", "prediction", "probability", "status", "reason", "message"]
_CACHED = 20_000  # thumbnails of some kilobytes
_CORRECTED = "-corrected"  # ends the name of the model that is trained from here
_PAGE = 500  # photos that are told at once


@dataclass
class Training:
    """A training from the page: `running`, `done` or `failed`."""

    state: str = "none"
    step: str = ""
    error: str = ""
    result: dict[str, Any] | None = None


class Review:
    """Predictions that a person goes through.

    Args:
        predictions: A folder of predictions.
        labels: The CSV file that gets the labels.

    Raises:
        InputError: It is no such folder, or the file cannot get labels.
    """

    def __init__(self, predictions: Where, labels: Path):
        self.run = open_run(predictions, PREDICTIONS)
        parts, self._starts = _read(self.run)
        self._rows = pa.Table.from_batches(parts)
        self._photos = Photos(self.run.folder.url, self.run.job.images)
        self.model = _model_of(self.run)
        self._codes, self._why_not = _codes_of(self.run, self.model)
        self._given = _given(self.run, self.model) if self._codes else {}
        self.journal = Journal(labels)
        self._lock = Lock()  # of the journal, the views and the training
        self._labels: dict[int, str] = {}  # of the journal, by row
        for path, row in self._row_of(list(self.journal.labels)).items():
            self._labels[row] = self.journal.labels[path]
        known = self.model.head.classes if self.model else pc.unique(self._rows["prediction"]).drop_null().to_pylist()
        self._classes = list(dict.fromkeys([*known, *sorted(set(self.journal.labels.values()))]))
        self._decoding = BoundedSemaphore(os.cpu_count() or 1)  # a photo may be large: not all at once
        self.thumbnail: Callable[[int], bytes] = lru_cache(_CACHED)(self._thumbnail)
        self._images = lru_cache(64)(self._photos.in_shard)
        self.training = Training()

    def __len__(self) -> int:
        return len(self._rows)

    def state(self) -> dict[str, Any]:
        """What the page shows besides photos."""
        return {
            "title": self.run.folder.url,
            "photos": len(self),
            "classes": self._classes,
            "labelled": len(self.journal.labels),
            "file": str(self.journal.file),
            "views": VIEWS,
            "commands": self.commands(),
            "why_not": self._why_not,
            "random": self.run.job.weights if self.run.job.weights.startswith("random:") else "",
        }

    def view(self, name: str, label: str = "") -> list[int]:
        """The rows of a view, in order.

        Args:
            name: One of `VIEWS`.
            label: Of `class`: which.

        Raises:
            InputError: There is no such view, or it cannot be made of these predictions.
        """
        if name not in VIEWS:
            raise InputError(f"There is no view {name}: choose one of {', '.join(VIEWS)}.")
        ok = pc.equal(self._rows["status"], OK).to_numpy(zero_copy_only=False)
        if name == FAILED:
            return np.flatnonzero(~ok)[:_MOST].tolist()
        with self._lock:
            mine = np.array(sorted(self._labels), np.int64)
        if name == DIFFERENT:
            found = [row["path"] for row in next_labels(self.run.folder.url, _DIFFERENT + len(mine))]
            rows = np.array([row for row in self._row_of(found).values() if row not in self._labels], np.int64)
            return rows[:_DIFFERENT].tolist()
        if name == SUSPECTS:
            return self._suspects()
        if name == LABELLED:
            return mine[:_MOST].tolist()
        sure = self._rows["probability"].to_numpy()
        if name == CLASS:
            same = pc.fill_null(pc.equal(self._rows["prediction"], label), False)
            chosen = same.to_numpy(zero_copy_only=False).copy()
            chosen[mine] = [self._labels[row] == label for row in mine.tolist()]
        else:
            chosen = ok.copy()
            chosen[mine] = False
        rows = np.flatnonzero(chosen)
        return rows[np.argsort(sure[rows], kind="stable")][:_MOST].tolist()

    def _suspects(self) -> list[int]:
        if self.model is None or not self._codes:
            raise InputError(f"Labels cannot be judged here: {self._why_not}")
        rows = self._row_of([row["path"] for row in suspects(self.run.job.model or "")])
        return [row for row in rows.values() if row not in self._labels][:_MOST]

    def photos(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """What is known of rows: at most some hundreds."""
        rows = [row for row in rows if 0 <= row < len(self)][:_PAGE]
        found = self._rows.take(pa.array(rows, pa.int64())).to_pylist()
        return [
            photo | {"row": row, "label": self._labels.get(row), "given": self._given.get(photo["path"])}
            for row, photo in zip(rows, found, strict=True)
        ]

    def label(self, rows: Sequence[int], label: str | None) -> dict[str, Any]:
        """Gives photos a label, or each its own prediction if that is None; on disk when this returns.

        Raises:
            InputError: There is no such photo, or the label is empty.
            RunError: It cannot be written.
        """
        photos = self._rows.take(pa.array(self._known(rows), pa.int64())).to_pylist()
        given = {photo["path"]: (photo["prediction"] if label is None else label.strip()) for photo in photos}
        if not given or not all(given.values()):
            raise InputError("A label must not be empty, and photos that failed have no code: choose others.")
        with self._lock:
            self.journal.write(given)
            for row, photo in zip(rows, photos, strict=True):
                self._labels[row] = given[photo["path"]]
            self._classes = list(dict.fromkeys([*self._classes, *given.values()]))
            return self._changed(rows)

    def undo(self) -> dict[str, Any]:
        """Takes the last change back; the rows that it had changed."""
        with self._lock:
            rows = self._row_of(list(before := self.journal.undo()))
            for path, row in rows.items():
                if before[path] is None:
                    del self._labels[row]
                else:
                    self._labels[row] = before[path] or ""
            return self._changed(list(rows.values()))

    def _changed(self, rows: Sequence[int]) -> dict[str, Any]:
        labels = [{"row": row, "label": self._labels.get(row)} for row in rows]
        return {"labels": labels, "labelled": len(self.journal.labels), "classes": self._classes}

    def _known(self, rows: Sequence[int]) -> list[int]:
        for row in rows:
            if not 0 <= row < len(self):
                raise InputError(f"There is no photo {row}.")
        return list(rows)

    def commands(self) -> list[str]:
        """What trains again from the corrected labels, and labels the archive by that."""
        if not self._codes:
            return []
        codes, model = self._codes, self._target
        train = ["flowers-batch", "train", codes, model]
        for name in self._label_files:
            train += ["--labels", name]
        out = self.run.folder.url.rstrip("/").removesuffix(_CORRECTED) + _CORRECTED
        predict = ["flowers-batch", "predict", codes, out, "--model", model]
        return [shlex.join(train), shlex.join(predict)]

    @property
    def _target(self) -> str:
        """The folder of the model that is trained from here."""
        before = (self.run.job.model if self.model and self.run.job.model else self.run.folder.url).rstrip("/")
        return before if before.endswith(_CORRECTED) else before + _CORRECTED

    @property
    def _label_files(self) -> list[str]:
        before = self.model.training["labels"] if self.model else []
        return [*(name for name in before if name != str(self.journal.file)), str(self.journal.file)]

    def train(self) -> None:
        """Begins a training from the corrected labels, unless one is going on.

        Raises:
            InputError: There are no codes to train on.
        """
        if not self._codes:
            raise InputError(f"Nothing can be trained here: {self._why_not}")
        with self._lock:
            if self.training.state == "running":
                return
            self.training = Training("running", "reading labels")
        Thread(target=self._train, args=(self.training,), daemon=True).start()

    def _train(self, training: Training) -> None:
        before = self.model.training if self.model else {}
        asked = {name: before[name] for name in ("head", "min_precision", "memory", "seed") if name in before}
        try:
            with heard_by(_Listener(training)):
                metrics = train(self._codes, self._target, TrainConfig(labels=tuple(self._label_files), **asked))
            training.result = self._compare(metrics)
            training.state = "done"
        except FlowersError as error:
            training.state, training.error = "failed", str(error)
        except Exception as error:
            training.state, training.error = "failed", f"The training failed: {error!r}."

    def _compare(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Accuracy before and after on the same held-out photos, with the labels that they have now."""
        with open_folder(self._target).open(SPLIT) as file:
            rows = pq.read_table(file, columns=["path", "label", "side"])
        rows = rows.filter(pc.equal(rows["side"], "test"))
        truth = dict(zip(rows["path"].to_pylist(), rows["label"].to_pylist(), strict=True))
        at = self._row_of(list(truth))
        told = self._rows["prediction"].take(pa.array(at.values(), pa.int64())).to_pylist()
        right = sum(truth[path] == name for path, name in zip(at, told, strict=True))
        return {
            "before": right / len(at) if len(at) == len(truth) else None,
            "before_interval95": wilson_interval(right, len(at)) if len(at) == len(truth) else None,
            "after": metrics["test"]["accuracy"],
            "after_interval95": metrics["test"]["interval95"],
            "photos": metrics["test"]["photos"],
            "unknown_paths": metrics["unknown_paths"],
            "model": self._target,
        }

    def _row_of(self, paths: list[str]) -> dict[str, int]:
        """Rows by path, of those paths that there are."""
        found = pc.index_in(pa.array(paths, pa.string()), self._rows["path"].combine_chunks()).to_pylist()
        return {path: row for path, row in zip(paths, found, strict=True) if row is not None}

    def _thumbnail(self, row: int) -> bytes:
        """A small picture of a row's photo.

        Raises:
            ReadError, DecodeError: It cannot be read, gives no picture, or lies elsewhere.
        """
        path = self._rows["path"][self._known([row])[0]].as_py()
        image = self._image(row, path)
        if self._photos.leads_outside(image):
            raise ReadError("unreadable", "Its file lies outside the folder of the photos.")
        with self._decoding:
            return self._photos.thumbnail(image)

    def _image(self, row: int, path: str) -> Image:
        if self._photos.source is None or self._photos.source.found_by_path:
            return Image(path)
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        try:
            return self._images(shard)[path]
        except KeyError:
            raise ReadError("missing", "The manifest does not name it any more.") from None


class _Listener(logging.Handler):
    """Notes what a training is at."""

    def __init__(self, training: Training):
        super().__init__()
        self._training = training

    def emit(self, record: logging.LogRecord) -> None:
        self._training.step = record.getMessage()


def _read(run: Run) -> tuple[list[pa.RecordBatch], NDArray[np.int64]]:
    """All rows, but for the columns that the page does not show, and the first row of each shard."""
    parts: list[pa.RecordBatch] = []
    counts = [0]
    for shard in range(run.shards):
        here = list(read_shard(run.folder, PREDICTIONS, shard, _COLUMNS))
        parts += here
        counts.append(sum(map(len, here)))
    return parts, np.cumsum(counts)[:-1]


def _model_of(run: Run) -> Model | None:
    """The model that made the predictions, if it is still there."""
    url = run.job.model
    if url is None or "/" not in url or not open_folder(url).exists(MODEL):
        return None
    model = load_model(url)
    return model if run.job.fingerprint.head == model.head.identity else None


def _codes_of(run: Run, model: Model | None) -> tuple[str, str]:
    """The codes that labels of these photos can be trained on, or why there are none."""
    codes = run.job.codes or (model.codes if model and model.images == run.job.images else "")
    if not codes:
        return "", (
            "these labels were made from photos whose codes were not kept. Encode the photos once, predict from those "
            "codes, and review that: flowers-batch encode " + shlex.join([run.job.images, "CODES"])
        )
    if model and model.codes != codes:
        return "", f"the classifier was trained on other codes, {model.codes}: label photos of those."
    try:
        open_run(codes, CODES)
    except InputError as error:
        return "", str(error)
    return codes, ""


def _given(run: Run, model: Model | None) -> dict[str, str]:
    """Labels that the classifier was trained on, by path."""
    if model is None or run.job.model is None:
        return {}
    with open_folder(run.job.model).open(SPLIT) as file:
        rows = pq.read_table(file, columns=["path", "label"])
    return dict(zip(rows["path"].to_pylist(), rows["label"].to_pylist(), strict=True))
