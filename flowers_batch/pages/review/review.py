"""What the review page shows and does: photos in the order that a person asks for, labels, and retraining."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock, Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.classifier.evaluation import wilson_interval
from flowers_batch.classifier.model_folder import MODEL, Model, load_model, read_split
from flowers_batch.classifier.suggestions import label_issues, suggest
from flowers_batch.classifier.training import train
from flowers_batch.config import IMAGENET, TrainConfig
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES, OK, PREDICTIONS
from flowers_batch.dataset.shard_file import read_shard
from flowers_batch.errors import FlowersError, InputError
from flowers_batch.pages.review.journal import Journal
from flowers_batch.pages.thumbnails import Photos
from flowers_batch.progress import Progress
from flowers_batch.sources.images import Image
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.reading import ReadError
from flowers_batch.storage.folder import PathOrUrl, open_folder

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
_TEXT = pa.large_string()  # of an archive's paths there may be more than two gigabytes
_SCHEMA = pa.schema(
    [("path", _TEXT), ("prediction", _TEXT), ("probability", pa.float32())]
    + [(name, _TEXT) for name in ("status", "reason", "message")]
)
_COLUMNS = _SCHEMA.names
_CACHED = 20_000  # thumbnails of some kilobytes
_PAGE = 500  # photos that are told at once
_LABEL = 200  # characters
_CORRECTED = re.compile(r"(.*?)(?:-corrected(?:-([0-9]+))?)?", re.DOTALL)


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

    def __init__(self, predictions: PathOrUrl, labels: PathOrUrl):
        self.run = open_run(predictions, PREDICTIONS)
        parts, self._starts = _read(self.run)
        self._rows = pa.Table.from_batches(parts).combine_chunks()
        self._photos = Photos(self.run.folder.url, self.run.job.images)
        self._trained = _model_of(self.run)  # whose labels and settings a training anew begins with
        made = self._trained and self._trained.head.identity == self.run.job.fingerprint.head
        self.model = self._trained if made else None
        self._codes, self._why_not = _codes_of(self.run, self._trained)
        self._given = _given(self.run) if self._trained and self._codes else {}
        self.journal = Journal(labels)
        self._lock = Lock()  # of the journal, the labels and the training
        self._row_of_path = self._find(list(self.journal.labels))  # of the photos that have a label here
        self._labels = {row: self.journal.labels[path] for path, row in self._row_of_path.items()}
        known = self.model.head.classes if self.model else pc.unique(self._rows["prediction"]).drop_null().to_pylist()
        self._classes = list(dict.fromkeys([*known, *self.journal.labels.values()]))
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

    def view(self, name: str, label: str = "") -> dict[str, Any]:
        """The rows of a view, in order.

        Args:
            name: One of `VIEWS`.
            label: Of `class`: which.

        Returns:
            `rows`, at most a hundred thousand of the `total`; of labels that look wrong also `suggested`: label and
            probability, by row.

        Raises:
            InputError: There is no such view, or it cannot be made of these predictions.
        """
        if name not in VIEWS:
            raise InputError(f"There is no view {name}: choose one of {', '.join(VIEWS)}.")
        with self._lock:
            labels = self._labels.copy()
        if name == DIFFERENT:
            found = suggest(self.run.folder.url, _DIFFERENT, labels=[str(self.journal.file)])
            return _shown([*self._find([row["path"] for row in found]).values()])
        if name == SUSPECTS:
            return self._suspects(labels)
        mine = np.array(sorted(labels), np.int64)
        if name == LABELLED:
            return _shown(mine)
        ok = pc.equal(self._rows["status"], OK).to_numpy(zero_copy_only=False)
        if name == FAILED:
            return _shown(np.flatnonzero(~ok))
        if name == CLASS:
            same = pc.fill_null(pc.equal(self._rows["prediction"], label), False)
            chosen = same.to_numpy(zero_copy_only=False).copy()
            chosen[mine] = [labels[row] == label for row in mine.tolist()]
        else:
            chosen = ok.copy()
            chosen[mine] = False
        rows = np.flatnonzero(chosen)
        return _shown(rows[np.argsort(self._rows["probability"].to_numpy()[rows], kind="stable")])

    def _suspects(self, labels: dict[int, str]) -> dict[str, Any]:
        """Photos whose label looks wrong, unless they were given another one here."""
        if self._trained is None or not self._codes:
            raise InputError(f"Labels cannot be judged here: {self._why_not}")
        found = {row["path"]: row for row in label_issues(self.run.job.model or "")}
        judged = {row: found[path] for path, row in self._find(list(found)).items()}
        rows = {row: each for row, each in judged.items() if labels.get(row, each["label"]) == each["label"]}
        suggested = {row: [each["suggested"], each["probability"]] for row, each in rows.items()}
        return _shown([*rows]) | {"suggested": suggested}

    def photos(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """What is known of rows: at most some hundreds."""
        rows = [row for row in rows if 0 <= row < len(self)][:_PAGE]
        found = self._rows.take(pa.array(rows, pa.int64())).to_pylist()
        return [
            photo | {"row": row, "label": self._labels.get(row), "given": self._given.get(photo["path"], [None])[0]}
            for row, photo in zip(rows, found, strict=True)
        ]

    def label(self, rows: Sequence[int], labels: Sequence[str | None]) -> dict[str, Any]:
        """Gives photos labels, all at once; on disk when this returns.

        Args:
            rows: Which photos; those that failed are left out, and counted as `skipped`.
            labels: Of each; None is its prediction.

        Raises:
            InputError: There is no such photo, or a label is empty, too long or no text.
            RunError: They cannot be written.
        """
        photos = self._rows.take(pa.array(self._known(rows), pa.int64())).to_pylist()
        given = {
            row: (photo["path"], photo["prediction"] if label is None else _checked(label))
            for row, photo, label in zip(rows, photos, labels, strict=True)
            if photo["status"] == OK
        }
        with self._lock:
            if given:
                self.journal.write(dict(given.values()))
            self._labels |= {row: label for row, (_, label) in given.items()}
            self._row_of_path |= {path: row for row, (path, _) in given.items()}
            self._classes = list(dict.fromkeys([*self._classes, *(label for _, label in given.values())]))
            return self._changed(given) | {"skipped": len(rows) - len(given)}

    def undo(self) -> dict[str, Any]:
        """Takes the last change back; the rows that it had changed."""
        with self._lock:
            before = self.journal.undo()
            rows = {self._row_of_path[path]: label for path, label in before.items() if path in self._row_of_path}
            for row, label in rows.items():
                if label is None:
                    del self._labels[row]
                else:
                    self._labels[row] = label
            return self._changed(rows)

    def _changed(self, rows: Iterable[int]) -> dict[str, Any]:
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
        train = ["flowers-batch", "train", self._codes, self._target]
        for name in self._label_files:
            train += ["--labels", name]
        out = _next(self.run.folder.url)
        return [shlex.join(train), shlex.join(["flowers-batch", "predict", self._codes, out, "--model", self._target])]

    @property
    def _target(self) -> str:
        """The folder of the model that is trained from here: never one that there was before this review."""
        if self._trained and self.run.job.model:
            return _next(self.run.job.model)
        return _next(f"{self.run.folder.url.rstrip('/')}-model")

    @property
    def _label_files(self) -> list[str]:
        before = self._trained.training["labels"] if self._trained else []
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
        before = self._trained.training if self._trained else {}
        asked = {name: before[name] for name in ("head", "min_precision", "max_memory_mb", "seed") if name in before}
        try:
            config = TrainConfig(labels=tuple(self._label_files), **asked)
            metrics = train(self._codes, self._target, config, reporter=_TrainingReporter(training))
            training.result = self._compare(metrics)
            training.state = "done"
        except FlowersError as error:
            training.state, training.error = "failed", str(error)
        except Exception as error:
            training.state, training.error = "failed", f"The training failed: {error!r}."

    def _compare(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Accuracy before and after on the same photos, which neither was trained or tuned on, by the labels of now."""
        rows = read_split(open_folder(self._target), ["path", "label", "prediction", "split"])
        rows = rows.filter(pc.equal(rows["split"], "test"))
        at = self._find(rows["path"].to_pylist())
        before = dict(
            zip(at, self._rows["prediction"].take(pa.array(at.values(), pa.int64())).to_pylist(), strict=True)
        )
        fair = [row for row in rows.to_pylist() if row["path"] in before and self._was_held_out(row["path"])]
        right = [(before[row["path"]] == row["label"], row["prediction"] == row["label"]) for row in fair]
        counts = [sum(each) for each in zip(*right, strict=True)] or [0, 0]
        return {
            "photos": len(fair),
            "before": counts[0] / len(fair) if fair else None,
            "after": counts[1] / len(fair) if fair else None,
            "after_interval95": wilson_interval(counts[1], len(fair)) if fair else None,
            "unknown_paths": metrics["unknown_paths"],
            "model": self._target,
        }

    def _was_held_out(self, path: str) -> bool:
        return path not in self._given or self._given[path][1] == "test"

    def _find(self, paths: list[str]) -> dict[str, int]:
        """Rows by path, in the paths' order, of those that there are."""
        wanted = pa.array(paths, pa.large_string())
        found = pc.index_in(self._rows["path"], wanted)
        rows = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
        numbers = found.drop_null().to_numpy()
        return {paths[number]: row for number, row in sorted(zip(numbers.tolist(), rows.tolist(), strict=True))}

    def _thumbnail(self, row: int) -> bytes:
        """A small picture of a row's photo.

        Raises:
            ReadError, DecodeError: It cannot be read, gives no picture, or lies elsewhere.
        """
        path = self._rows["path"][self._known([row])[0]].as_py()
        image = self._image(row, path)
        if self._photos.leads_outside(image):
            raise ReadError("unreadable", "Its file lies outside the folder of the photos.")
        return self._photos.thumbnail(image)

    def _image(self, row: int, path: str) -> Image:
        source = self._photos.source
        if source is None or (source.found_by_path and not isinstance(source, ListSource)):
            return Image(path)
        # Of a list, too: it may name files anywhere, so no others are taken than those that the run was given.
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        try:
            return self._images(shard)[path]
        except KeyError:
            raise ReadError("missing", "The manifest does not name it any more.") from None


class _TrainingReporter:
    """Keeps the latest step of a training for the page."""

    def __init__(self, training: Training):
        self._training = training

    def message(self, sentence: str) -> None:
        self._training.step = sentence

    def update(self, progress: Progress) -> None:
        self._training.step = progress.text


def _read(run: Run) -> tuple[list[pa.RecordBatch], NDArray[np.int64]]:
    """All rows, but for the columns that the page does not show, and the first row of each shard."""
    parts: list[pa.RecordBatch] = []
    counts = [0]
    for shard in range(run.shards):
        here = [batch.cast(_SCHEMA) for batch in read_shard(run.folder, PREDICTIONS, shard, _COLUMNS)]
        parts += here
        counts.append(sum(map(len, here)))
    return parts, np.cumsum(counts)[:-1]


def _shown(rows: Sequence[int] | NDArray[np.int_]) -> dict[str, Any]:
    return {"rows": [int(row) for row in rows[:_MOST]], "total": len(rows)}


def _checked(label: str) -> str:
    label = label.strip()
    try:
        label.encode()
    except UnicodeEncodeError:
        label = ""
    if not 0 < len(label) <= _LABEL:
        raise InputError(f"A label must be text of 1 to {_LABEL} characters.")
    return label


def _next(url: str) -> str:
    """The name of a folder that follows one: `model`, `model-corrected`, `model-corrected-2` and so on."""
    base, number = _CORRECTED.fullmatch(url.rstrip("/")).groups()  # type: ignore[union-attr]
    if base == url.rstrip("/"):
        return f"{base}-corrected"
    return f"{base}-corrected-{int(number or 1) + 1}"


def _model_of(run: Run) -> Model | None:
    """The model that the predictions name, as it is now; None where it is not there."""
    url = run.job.model
    return load_model(url) if url and url != IMAGENET and open_folder(url).exists(MODEL) else None


def _codes_of(run: Run, model: Model | None) -> tuple[str, str]:
    """The codes that labels of these photos can be trained on, or why there are none."""
    if run.job.model not in (None, IMAGENET) and model is None:
        return "", f"the classifier {run.job.model} is not there any more, and with it what labels it was trained on."
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


def _given(run: Run) -> dict[str, tuple[str, str]]:
    """Labels that the classifier was trained on, and the side of the split that each is on, by path."""
    columns = read_split(open_folder(run.job.model or ""), ["path", "label", "split"])
    return {path: (label, side) for path, label, side in zip(*map(pa.ChunkedArray.to_pylist, columns), strict=True)}
