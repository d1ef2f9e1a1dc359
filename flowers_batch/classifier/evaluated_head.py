"""A fitted head calibrated, given a threshold, evaluated, and published as a model folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowers_batch.classifier.evaluation import (
    at_threshold,
    auroc,
    calibration_curve,
    calibration_error,
    evaluate,
    find_threshold,
    fit_temperature,
    outcomes,
)
from flowers_batch.classifier.fitting import logits_of
from flowers_batch.classifier.head import Head
from flowers_batch.classifier.labelled_split import LabelledSplit
from flowers_batch.classifier.model_folder import MODEL, SPLIT, Model, read_split, save_model, write_metrics
from flowers_batch.classifier.split import SIDES, TEST, VALIDATION
from flowers_batch.config import TrainConfig
from flowers_batch.dataset.run_folder import Run, library_versions
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.storage.folder import Folder


@dataclass(frozen=True)
class EvaluatedHead:
    """A head that is ready for use, and how good it is.

    Attributes:
        head: With temperature and threshold.
        probabilities: float32 [N, classes], of all labelled photos.
        metrics: The content of `metrics.json`.
    """

    head: Head
    probabilities: NDArray[np.float32]
    metrics: dict[str, Any]


def evaluate_head(
    run: Run, photos: LabelledSplit, head: Head, config: TrainConfig, reporter: Reporter = NULL_REPORTER
) -> EvaluatedHead:
    """Calibrates a head that was fitted, finds its threshold on the validation side, and judges it on all sides."""
    logits = logits_of(head, photos.sample, reporter)
    targets, on = photos.sample.targets, [photos.sides == side for side in range(len(SIDES))]
    temperature = fit_temperature(logits[on[VALIDATION]], targets[on[VALIDATION]])
    before = calibration_curve(targets[on[TEST]], replace(head, temperature=1.0).probabilities_of(logits[on[TEST]]))
    head = replace(head, temperature=temperature)
    probabilities = head.probabilities_of(logits)
    sides = [(targets[side], probabilities[side]) for side in on]
    threshold = find_threshold(*sides[VALIDATION], config.min_precision)
    head = replace(head, threshold=threshold)
    labelled = photos.labelled
    metrics: dict[str, Any] = {
        "classes": list(photos.classes),
        "photos": {name: int((photos.sides == side).sum()) for side, name in enumerate(SIDES)},
        "without_code": labelled.without_code,
        "unknown_paths": labelled.unknown_paths,
        "unknown_examples": labelled.unknown_examples,
        "empty_labels": labelled.empty_labels,
        "unlabelled": labelled.unlabelled,
        "conflicts": labelled.conflicts,
        "weights": run.job.weights,
        "fingerprint": run.job.fingerprint.digest,
    }
    for side, name in enumerate(SIDES):
        metrics[name] = evaluate(*sides[side], list(photos.classes))
    curve = calibration_curve(*sides[TEST])
    metrics["calibration"] = {
        "temperature": head.temperature,
        "ece_before": calibration_error(before),
        "ece_after": calibration_error(curve),
        "curve": curve,
    }
    sure, right = outcomes(*sides[TEST])
    metrics["unknown"] = {
        "min_precision": config.min_precision,
        "threshold": threshold,
        **at_threshold(*sides[VALIDATION], threshold),
        "test": at_threshold(*sides[TEST], threshold),
        "auroc": auroc(sure[right], sure[~right]),
    }
    metrics["learning_curve"] = [
        {"share": 1.0, "photos": metrics["photos"]["train"], "accuracy": metrics["test"]["accuracy"]}
    ]
    metrics["split"] = {
        "groups": len(photos.values),
        "grouped_photos": int((np.bincount(photos.sample.groups)[photos.sample.groups] > 1).sum()),
        "accuracy_without_groups": None,
    }
    return EvaluatedHead(head, probabilities, metrics)


def publish(folder: Folder, run: Run, photos: LabelledSplit, judged: EvaluatedHead, training: dict[str, Any]) -> None:
    """Writes a model folder, which the caller holds the lock of.

    Args:
        folder: The model folder.
        run: The codes folder that the head takes codes of.
        photos: The labelled ones.
        judged: The head.
        training: What was asked for: `Model.training`.
    """
    metrics = judged.metrics
    metrics["split"]["moved"] = _moved(folder, photos.labelled.paths, photos.sides)
    # A model that is half new must not be taken for whole: what makes it one goes first and comes last.
    folder.delete(MODEL)
    _write_split(folder, photos, judged.probabilities)
    write_metrics(folder, metrics)
    save_model(
        folder,
        Model(
            head=judged.head,
            fingerprint=run.job.fingerprint,
            weights=run.job.weights,
            codes=run.folder.url,
            images=run.job.images,
            split={"photos": metrics["photos"], "groups": metrics["split"]["groups"]},
            training=training,
            versions=library_versions(),
        ),
    )


def _moved(model: Folder, paths: list[str], sides: NDArray[np.int_]) -> int:
    """Photos that were on another side when this model was last trained, since their groups have become one."""
    try:
        table = read_split(model, ["path", "split"])
    except (OSError, pa.ArrowException):  # there is none, or none that can be read: it is about to be written anew
        return 0
    before = dict(zip(*(table[name].to_pylist() for name in ("path", "split")), strict=True))
    return sum(before.get(path, SIDES[side]) != SIDES[side] for path, side in zip(paths, sides, strict=True))


def _write_split(folder: Folder, photos: LabelledSplit, probabilities: NDArray[np.float32]) -> None:
    labelled = photos.labelled
    table = pa.table(
        {
            "path": labelled.paths,
            "label": labelled.labels.tolist(),
            "sha256": pa.array(labelled.sha256, pa.binary(32)),
            "group": photos.sample.groups,
            "split": [SIDES[side] for side in photos.sides],
            "prediction": np.array(photos.classes)[probabilities.argmax(1)].tolist(),
            "probability": probabilities.max(1),
        }
    )
    with folder.publish(SPLIT) as scratch:
        pq.write_table(table, scratch, compression="zstd")
