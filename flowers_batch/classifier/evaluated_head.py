"""Calibration and evaluation of a fitted head, and its publication as a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import (
    TopLabels,
    at_threshold,
    calibration_curve,
    expected_calibration_error,
    find_threshold,
    fit_temperature,
)
from flowers_batch.classifier.evaluation import auroc, evaluate
from flowers_batch.classifier.fitting import predict_logits, predict_top_labels
from flowers_batch.classifier.head import Head
from flowers_batch.classifier.labelled_split import LabelledSplit
from flowers_batch.classifier.labels import LabelledPhotos
from flowers_batch.classifier.model_folder import LABELS, MODEL, SPLIT, Model, read_split, save_model, write_metrics
from flowers_batch.classifier.split import SPLITS, TEST, VALIDATION
from flowers_batch.config import TrainConfig
from flowers_batch.dataset.job import library_versions
from flowers_batch.dataset.run_folder import Run
from flowers_batch.errors import FlowersError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.storage.folder import Folder


@dataclass(frozen=True)
class EvaluatedHead:
    """A head that is ready for use, and its evaluation.

    Attributes:
        head: With temperature and threshold.
        top: The labels that it predicts for all labelled photos.
        metrics: The content of `metrics.json`.
    """

    head: Head
    top: TopLabels
    metrics: dict[str, Any]


def evaluate_head(
    run: Run, labelled: LabelledSplit, head: Head, config: TrainConfig, reporter: Reporter = NULL_REPORTER
) -> EvaluatedHead:
    """Calibrate a fitted head, find its threshold on the validation photos, and evaluate it on each split.

    Args:
        run: The codes folder.
        labelled: Its labelled photos.
        head: A fitted head, without temperature and threshold.
        config: The settings.
        reporter: Receives progress.

    Returns:
        The head with temperature and threshold, the labels that it predicts, and its metrics.
    """
    validation = labelled.codes_of(VALIDATION)
    temperature = fit_temperature(predict_logits(head, validation, reporter), validation.targets)
    before = calibration_curve(predict_top_labels(replace(head, temperature=1.0), labelled.codes_of(TEST), reporter))
    head = replace(head, temperature=temperature)
    top = predict_top_labels(head, labelled.codes, reporter)
    by_split = [top[labelled.splits == split] for split in range(len(SPLITS))]
    head = replace(head, threshold=find_threshold(by_split[VALIDATION], config.min_precision))
    metrics = _describe_photos(run, labelled)
    metrics |= {name: evaluate(part, labelled.classes) for name, part in zip(SPLITS, by_split, strict=True)}
    curve = calibration_curve(by_split[TEST])
    metrics["calibration"] = {
        "temperature": head.temperature,
        "ece_before": expected_calibration_error(before),
        "ece_after": expected_calibration_error(curve),
        "curve": curve,
    }
    metrics["unknown"] = _evaluate_threshold(head, by_split, config.min_precision)
    metrics["learning_curve"] = [
        {"share": 1.0, "photos": metrics["photos"]["train"], "accuracy": metrics["test"]["accuracy"]}
    ]
    groups = labelled.codes.groups
    metrics["split"] = {
        "groups": len(labelled.keys),
        "grouped_photos": int((np.bincount(groups)[groups] > 1).sum()),
        "accuracy_without_groups": None,
    }
    return EvaluatedHead(head, top, metrics)


def _describe_photos(run: Run, labelled: LabelledSplit) -> dict[str, Any]:
    """Return what metrics say about the labelled photos and their codes."""
    return {
        "classes": list(labelled.classes),
        "photos": {name: int((labelled.splits == split).sum()) for split, name in enumerate(SPLITS)},
        **asdict(labelled.photos.counts),
        "left_out_classes": asdict(labelled.left_out),
        "conflicts": labelled.all_photos.conflicts,
        "weights": run.job.weights,
        "fingerprint": run.job.fingerprint.digest,
    }


def _evaluate_threshold(head: Head, by_split: Sequence[TopLabels], min_precision: float) -> dict[str, Any]:
    """Return precision and coverage at the threshold, and the AUROC of probabilities of correct and wrong labels."""
    assert head.threshold is not None
    test = by_split[TEST]
    return {
        "min_precision": min_precision,
        "threshold": head.threshold,
        **at_threshold(by_split[VALIDATION], head.threshold),
        "test": at_threshold(test, head.threshold),
        "auroc": auroc(test.probabilities[test.correct], test.probabilities[~test.correct]),
    }


def publish_model(
    folder: Folder, run: Run, labelled: LabelledSplit, evaluated: EvaluatedHead, training: dict[str, Any]
) -> None:
    """Write a model folder; the caller holds its lock.

    Args:
        folder: The model folder.
        run: The codes folder that the head was trained on.
        labelled: The labelled photos.
        evaluated: The head.
        training: The settings of the training: `Model.training`.
    """
    metrics = evaluated.metrics
    metrics["split"]["moved"] = _count_moved(folder, labelled.photos.paths, labelled.splits)
    # A half-written model must not pass for a complete one: model.json is deleted first and written last.
    folder.delete(MODEL)
    _write_labels(folder, labelled.all_photos)
    _write_split(folder, labelled, evaluated.top)
    write_metrics(folder, metrics)
    save_model(
        folder,
        Model(
            head=evaluated.head,
            fingerprint=run.job.fingerprint,
            weights=run.job.weights,
            codes=run.folder.url,
            images=run.job.images,
            split={"photos": metrics["photos"], "groups": metrics["split"]["groups"]},
            training=training,
            versions=library_versions(),
        ),
    )


def _count_moved(model: Folder, paths: list[str], splits: NDArray[np.int_]) -> int:
    """Return how many photos were in another split when this model was last trained: their groups have merged."""
    try:
        table = read_split(model, ["path", "split"])
    except FlowersError:  # missing or unreadable: it is about to be rewritten
        return 0
    before = dict(zip(*(table[name].to_pylist() for name in ("path", "split")), strict=True))
    return sum(before.get(path, SPLITS[split]) != SPLITS[split] for path, split in zip(paths, splits, strict=True))


def _write_labels(folder: Folder, photos: LabelledPhotos) -> None:
    """Write the copy of the labels that a later training, or a search for wrong labels, starts from."""
    table = pa.table(
        {"path": photos.paths, "label": photos.labels.tolist(), "sha256": pa.array(photos.sha256, pa.binary(32))}
    )
    with folder.publish(LABELS) as scratch:
        pq.write_table(table, scratch, compression="zstd", write_page_checksum=True)


def _write_split(folder: Folder, labelled: LabelledSplit, top: TopLabels) -> None:
    photos = labelled.photos
    table = pa.table(
        {
            "path": photos.paths,
            "label": photos.labels.tolist(),
            "sha256": pa.array(photos.sha256, pa.binary(32)),
            "group": labelled.codes.groups,
            "split": [SPLITS[split] for split in labelled.splits],
            "prediction": np.array(labelled.classes)[top.labels].tolist(),
            "probability": top.probabilities,
        }
    )
    with folder.publish(SPLIT) as scratch:
        pq.write_table(table, scratch, compression="zstd", write_page_checksum=True)
