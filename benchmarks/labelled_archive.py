"""An archive whose labels are known, its folders' names, with which a person who labels photos is simulated."""

from __future__ import annotations

import csv
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import flowers_batch as fb
from flowers_batch.classifier.calibration import TopLabels
from flowers_batch.classifier.fitting import predict_top_labels
from flowers_batch.classifier.labelled_codes import labelled_codes_in
from flowers_batch.classifier.labels import read_labelled
from flowers_batch.classifier.model_folder import load_model
from flowers_batch.dataset.job import Job, write_job
from flowers_batch.dataset.run_folder import SUCCESS, open_run
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.dataset.shard_file import Footer, write_shard
from flowers_batch.encoding.labeller import CodesLabeller, Labeller
from flowers_batch.storage.opening import open_folder


class LabelledArchive:
    """The codes of an archive, and what they are labelled as.

    Args:
        codes: The codes folder, on this machine.
        scratch: An empty folder.
        head: The kind of classifier, as `TrainConfig.head`.

    Attributes:
        codes: The codes folder.
        paths: Of the photos that have a code and a label, str [N].
        labels: Their true labels, str [N].
        rows: Their rows in the codes folder, int [N].
        run: That folder, opened.
    """

    def __init__(self, codes: Path, scratch: Path, head: str = "auto"):
        self.codes, self._scratch, self._head = codes, scratch, head
        self.run = open_run(codes, CODES)
        photos = read_labelled(self.run, ("folder",))
        self.paths, self.labels, self.rows = np.array(photos.paths, object), photos.labels, photos.rows
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> np.ndarray:
        """The labels' names, sorted."""
        return np.unique(self.labels)

    def draw(self, per_class: int, random: np.random.Generator) -> np.ndarray:
        """Return the positions of as many random photos of each class."""
        own = [np.flatnonzero(self.labels == name) for name in self.classes]
        return np.sort(np.concatenate([random.permutation(each)[:per_class] for each in own]))

    def others(self, positions: np.ndarray) -> np.ndarray:
        """Return the positions of all other photos."""
        return np.setdiff1d(np.arange(len(self)), positions)

    def positions_of(self, rows: Sequence[dict[str, Any]]) -> np.ndarray:
        """Return the positions of the photos whose `path` some rows have."""
        number_of = {path: number for number, path in enumerate(self.paths)}
        return np.array([number_of[row["path"]] for row in rows], np.int64)

    def write_labels(self, positions: np.ndarray, labels: np.ndarray | None = None) -> str:
        """Write a labels file of some photos, with other labels than the true ones if they are given."""
        file = self._scratch / f"labels-{next(self._numbers)}.csv"
        named = (self.labels if labels is None else labels)[positions]
        with file.open("w", encoding="utf-8", newline="") as out:
            csv.writer(out).writerows([("path", "label"), *zip(self.paths[positions], named, strict=True)])
        return str(file)

    def train(self, positions: np.ndarray, labels: np.ndarray | None = None) -> tuple[Path, dict[str, Any]]:
        """Train a classifier on some photos, as `write_labels` labels them; return its folder and metrics."""
        model = self._scratch / f"model-{next(self._numbers)}"
        config = fb.TrainConfig((self.write_labels(positions, labels),), head=self._head)
        return model, fb.train(self.codes, model, config)

    def predict(self, model: Path, positions: np.ndarray) -> TopLabels:
        """Return what a model predicts for some photos; the targets are numbers of the model's classes, or -1."""
        head = load_model(model).head
        number_of = {name: number for number, name in enumerate(head.classes)}
        targets = np.array([number_of.get(name, -1) for name in self.labels[positions].tolist()])
        codes = labelled_codes_in(self.run, self.rows[positions], targets, np.arange(len(positions)))
        return predict_top_labels(head, codes)

    def write_predictions(self, model: Path) -> Path:
        """Write what `fb.predict` makes of all codes, without starting Ray."""
        folder = self._scratch / f"predictions-{next(self._numbers)}"
        trained = load_model(model)
        worker = CodesLabeller(str(self.codes), trained.fingerprint, Labeller(trained.head, 5))
        shutil.copytree(self.codes / "manifest", folder / "manifest")
        target = open_folder(folder)
        for number, shard in enumerate(self.run.manifest.shards):
            footer = Footer(trained.fingerprint.digest, shard.number, shard.inputs_digest, 0, 0)
            write_shard(target, PREDICTIONS, worker.schema, worker.batches(number, pa.table({}), {}), footer)
        places = {"model": str(model), "codes": str(self.codes)}
        write_job(target, Job(PREDICTIONS, self.run.job.images, trained.fingerprint, self.run.job.weights, **places))
        shutil.copy(self.codes / SUCCESS, folder)
        return folder
