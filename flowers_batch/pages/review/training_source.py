"""What a retraining from the review page can start from: the classifier's settings, its labels, and the codes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

import pyarrow as pa

from flowers_batch.classifier.model_folder import MODEL, Model, load_model, read_split
from flowers_batch.config import IMAGENET
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError
from flowers_batch.storage.folder import open_folder


@dataclass(frozen=True)
class TrainingSource:
    """What a retraining starts from.

    Attributes:
        model: The classifier that the predictions name, as it is now; None if it no longer exists.
        made_predictions: Whether that classifier is still the one which made the predictions.
        codes: The codes folder to train on; empty if there is none.
        unavailable: Why there are no codes to train on; empty if there are.
        labels: The labels that the classifier was trained on, by path: label and split.
    """

    model: Model | None
    made_predictions: bool
    codes: str
    unavailable: str
    labels: dict[str, tuple[str, str]] = field(default_factory=dict)

    def label_of(self, path: str) -> str | None:
        """Return the label that the classifier was trained on for a photo; None if there was none."""
        return self.labels[path][0] if path in self.labels else None

    def was_held_out(self, path: str) -> bool:
        """Return whether the classifier was neither trained nor validated on a photo."""
        return path not in self.labels or self.labels[path][1] == "test"


def find_training_source(run: Run) -> TrainingSource:
    """Return what a retraining of the classifier of some predictions can start from."""
    url = run.job.model
    model = load_model(url) if url and url != IMAGENET and open_folder(url).exists(MODEL) else None
    made_predictions = model is not None and model.head.identity == run.job.fingerprint.head
    try:
        codes = _find_codes(run, model)
    except InputError as error:
        return TrainingSource(model, made_predictions, "", str(error))
    return TrainingSource(model, made_predictions, codes, "", _training_labels(url) if url and model else {})


def _find_codes(run: Run, model: Model | None) -> str:
    """Return the codes folder that labels of the run's photos can be trained on, or raise why there is none."""
    if run.job.model not in (None, IMAGENET) and model is None:
        raise InputError(
            f"the classifier {run.job.model} no longer exists, so the labels that it was trained on are not known."
        )
    codes = run.job.codes or (model.codes if model and model.images == run.job.images else "")
    if not codes:
        raise InputError(
            "the predictions were made directly from photos, and no codes were kept. Encode the photos once, predict "
            "from the codes, and review those predictions: flowers-batch encode "
            + shlex.join([run.job.images, "CODES"])
        )
    if model and model.codes != codes:
        raise InputError(
            f"the classifier was trained on other codes, {model.codes}: review predictions made from those."
        )
    open_run(codes, CODES)
    return codes


def _training_labels(model: str) -> dict[str, tuple[str, str]]:
    columns = read_split(open_folder(model), ["path", "label", "split"])
    return {path: (label, split) for path, label, split in zip(*map(pa.ChunkedArray.to_pylist, columns), strict=True)}
