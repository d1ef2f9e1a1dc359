"""What a retraining from the review page can start from: the classifier's settings, its labels, and the codes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.classifier.model_folder import MODEL, Model, load_model, read_training_labels
from flowers_batch.config import IMAGENET
from flowers_batch.dataset.following import follow
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.storage.opening import open_folder


class TrainingLabels:
    """The labels that a classifier was trained on, by row of its predictions.

    Args:
        table: The photos.
        labelled: The classifier's labelled photos, with the columns `path`, `label` and `split` (null for photos of
            classes that it left out); None if not known.
    """

    def __init__(self, table: PhotoTable, labelled: pa.Table | None = None):
        self._names = pa.array([], pa.string())
        self._codes = np.full(len(table), -1, np.int32)  # positions in the names; -1 without a label
        self._held_out = np.ones(len(table), bool)
        if labelled is None or not len(labelled):
            return
        labels = labelled["label"].combine_chunks().dictionary_encode()
        rows = table.rows_of(labelled["path"])
        is_known = rows >= 0
        self._names = labels.dictionary
        self._codes[rows[is_known]] = labels.indices.to_numpy()[is_known]
        was_fitted = pc.is_in(labelled["split"], pa.array(["train", "validation"]))
        self._held_out[rows[is_known]] = ~was_fitted.to_numpy()[is_known]

    def label_of(self, row: int) -> str | None:
        """Return the label that the classifier was trained on for a photo; None if there was none."""
        code = int(self._codes[row])
        return self._names[code].as_py() if code >= 0 else None

    def were_held_out(self, rows: NDArray[np.int_]) -> NDArray[np.bool_]:
        """Return whether the classifier was neither trained nor validated on each photo: bool [rows]."""
        return self._held_out[rows]


@dataclass(frozen=True)
class TrainingSource:
    """What a retraining starts from.

    Attributes:
        url: The folder of the classifier; None if there is none, or if it is not followed.
        model: The classifier in it, as it is now; None if it no longer exists.
        made_predictions: Whether that classifier is still the one which made the predictions.
        codes: The codes folder to train on; empty if there is none.
        unavailable: Why there are no codes to train on; empty if there are.
        labels: The labels that the classifier was trained on.
    """

    url: str | None
    model: Model | None
    made_predictions: bool
    codes: str
    unavailable: str
    labels: TrainingLabels


def find_training_source(table: PhotoTable) -> TrainingSource:
    """Return what a training run can start from: of codes, these alone; of predictions, also their classifier."""
    run = table.run
    if run.job.kind == CODES:
        return TrainingSource(None, None, False, run.folder.url, "", TrainingLabels(table))
    try:
        url = None if run.job.model == IMAGENET else run.place("model")
    except InputError as error:
        return TrainingSource(None, None, False, "", str(error), TrainingLabels(table))
    model = load_model(url) if url and open_folder(url).exists(MODEL) else None
    made_predictions = model is not None and model.head.identity == run.job.fingerprint.head
    try:
        codes = _find_codes(run, url, model)
    except InputError as error:
        return TrainingSource(url, model, made_predictions, "", str(error), TrainingLabels(table))
    labels = read_training_labels(open_folder(url)) if url and model else None
    return TrainingSource(url, model, made_predictions, codes, "", TrainingLabels(table, labels))


def _find_codes(run: Run, url: str | None, model: Model | None) -> str:
    """Return the codes folder that labels of the run's photos can be trained on, or raise why there is none."""
    if run.job.model not in (None, IMAGENET) and model is None:
        raise InputError(f"the classifier {url} no longer exists, so the labels that it was trained on are not known.")
    codes = run.place("codes")
    trained_on = follow(open_folder(url), MODEL, "codes", model.codes, run.given.get("codes")) if url and model else ""
    if not codes and model and model.images == run.job.images:
        codes = trained_on
    if not codes:
        raise InputError(
            "the predictions were made directly from photos, and no codes were kept. Encode the photos once, predict "
            "from the codes, and review those predictions: flowers-batch encode "
            + shlex.join([run.job.images, "CODES"])
        )
    if model and trained_on != codes:
        raise InputError(
            f"the classifier was trained on other codes, {trained_on}: review predictions made from those."
        )
    open_run(codes, CODES)
    return codes
