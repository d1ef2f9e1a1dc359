"""Calibration and evaluation of a fitted head."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from flowers_batch.classifier.calibration import (
    TopLabels,
    at_threshold,
    calibration_curve,
    expected_calibration_error,
)
from flowers_batch.classifier.evaluation import auroc, evaluate
from flowers_batch.classifier.fitting import predict_top_labels
from flowers_batch.classifier.head import Head
from flowers_batch.classifier.held_out import HeldOut
from flowers_batch.classifier.labelled_split import LabelledSplit
from flowers_batch.classifier.promised_precision import Promise, photos_needed, promise_precision
from flowers_batch.classifier.split import SPLITS, TEST, TRAIN
from flowers_batch.config import TrainConfig
from flowers_batch.dataset.run_folder import Run
from flowers_batch.progress import NULL_REPORTER, Reporter

_MIN_TEST_PHOTOS = 10  # per class; with fewer, the accuracy of the model is the cross-validated one
_LOWER_PRECISIONS = (0.9, 0.8)


@dataclass(frozen=True)
class EvaluatedHead:
    """A head that is ready for use, and its evaluation.

    Attributes:
        head: With temperature and threshold.
        top: The labels that it predicts for all labelled photos; cross-validated ones of those that it was fitted to,
            if there are any.
        metrics: The content of `metrics.json`.
    """

    head: Head
    top: TopLabels
    metrics: dict[str, Any]


def evaluate_head(
    run: Run,
    labelled: LabelledSplit,
    head: Head,
    held_out: HeldOut,
    config: TrainConfig,
    reporter: Reporter = NULL_REPORTER,
) -> EvaluatedHead:
    """Calibrate a fitted head, find its threshold on held-out predictions, and evaluate it on the test photos.

    Args:
        run: The codes folder.
        labelled: Its labelled photos.
        head: A fitted head, without temperature and threshold.
        held_out: Predictions of photos other than the test photos.
        config: The settings.
        reporter: Receives progress.

    Returns:
        The head with temperature and threshold, the labels that it predicts, and its metrics.
    """
    can_judge = not labelled.random_needed
    head = replace(head, temperature=held_out.temperature() if can_judge else 1.0)
    out_of_sample = held_out.top_labels(head.temperature)
    promise = promise_precision(out_of_sample, held_out.groups, config.min_precision)
    head = replace(head, threshold=promise.threshold)
    top = predict_top_labels(head, labelled.codes, reporter)
    metrics = _describe_photos(run, labelled)
    for split, name in enumerate(SPLITS):
        if (labelled.splits == split).any() and (can_judge or split == TRAIN):
            metrics[name] = evaluate(top[labelled.splits == split], labelled.classes)
    if can_judge and held_out.is_cross_validated and held_out.predictable.any():
        metrics["cross_validation"] = evaluate(out_of_sample[held_out.predictable], labelled.classes)
    metrics["accuracy_of"] = _accuracy_of(metrics)
    metrics |= {"calibration": None, "learning_curve": []}
    if metrics["accuracy_of"]:
        metrics["calibration"] = _describe_calibration(head, held_out, top, labelled, reporter)
        accuracy = metrics[metrics["accuracy_of"]]["accuracy"]
        metrics["learning_curve"] = [{"share": 1.0, "photos": metrics["photos"]["train"], "accuracy": accuracy}]
    metrics["unknown"] = _describe_promise(promise, out_of_sample, held_out, top, labelled, config.min_precision)
    groups = labelled.codes.groups
    metrics["split"] = {
        "groups": len(labelled.keys),
        "grouped_photos": int((np.bincount(groups)[groups] > 1).sum()),
        "accuracy_without_groups": None,
    }
    if held_out.is_cross_validated:
        top = top.replaced((labelled.splits != TEST) & labelled.photos.are_random, out_of_sample)
    return EvaluatedHead(head, top, metrics)


def _describe_photos(run: Run, labelled: LabelledSplit) -> dict[str, Any]:
    """Return what metrics say about the labelled photos and their codes."""
    return {
        "classes": list(labelled.classes),
        "photos": {name: int((labelled.splits == split).sum()) for split, name in enumerate(SPLITS)},
        **asdict(labelled.photos.counts),
        "left_out_classes": asdict(labelled.left_out),
        "conflicts": labelled.all_photos.conflicts,
        "chosen": labelled.photos.ways,
        "random_needed": labelled.random_needed,
        "weights": run.job.weights,
        "fingerprint": run.job.fingerprint.digest,
    }


def _accuracy_of(metrics: dict[str, Any]) -> str | None:
    """Return the name of the accuracy that is the model's; None if it is not known."""
    if "test" in metrics and metrics["test"]["photos"] >= _MIN_TEST_PHOTOS * len(metrics["classes"]):
        return "test"
    return next((name for name in ("cross_validation", "test") if name in metrics), None)


def _describe_calibration(
    head: Head, held_out: HeldOut, top: TopLabels, labelled: LabelledSplit, reporter: Reporter
) -> dict[str, Any]:
    """Return how well held-out labels are calibrated, without and with the temperature."""
    if held_out.is_cross_validated and held_out.predictable.any():
        temperatures = (1.0, head.temperature)
        unscaled, scaled = (held_out.top_labels(each)[held_out.predictable] for each in temperatures)
    else:
        unscaled = predict_top_labels(replace(head, temperature=1.0), labelled.codes_of(TEST), reporter)
        scaled = top[labelled.splits == TEST]
    curve = calibration_curve(scaled)
    return {
        "temperature": head.temperature,
        "ece_before": expected_calibration_error(calibration_curve(unscaled)),
        "ece_after": expected_calibration_error(curve),
        "curve": curve,
    }


def _describe_promise(
    promise: Promise,
    out_of_sample: TopLabels,
    held_out: HeldOut,
    top: TopLabels,
    labelled: LabelledSplit,
    min_precision: float,
) -> dict[str, Any]:
    """Return the promised precision, what it rests on, and how the test photos keep it."""
    is_test = labelled.splits == TEST
    test = top[is_test]
    kept = out_of_sample[out_of_sample.probabilities >= promise.threshold]
    return {
        "min_precision": min_precision,
        "threshold": promise.threshold,
        "bound": promise.bound,
        "photos": promise.kept,
        "of_photos": promise.photos,
        "random_only": bool(labelled.photos.ways),
        "labels_needed": _labels_needed(promise, out_of_sample, held_out, labelled, min_precision),
        **at_threshold(out_of_sample, promise.threshold),
        "per_class": {
            name: {"precision": float(own.correct.mean()), "photos": len(own)}
            for number, name in enumerate(labelled.classes)
            if len(own := kept[kept.labels == number])
        },
        "test": at_threshold(test, promise.threshold),
        "auroc": auroc(test.probabilities[test.correct], test.probabilities[~test.correct]),
    }


def _labels_needed(
    promise: Promise, out_of_sample: TopLabels, held_out: HeldOut, labelled: LabelledSplit, min_precision: float
) -> dict[str, int | None]:
    """Return how many labels would probably suffice for precisions that cannot be promised yet, by precision.

    Of all labels, as many are test photos as of these. Only labels of randomly chosen photos count.
    """
    if promise.bound is not None or not len(held_out.targets):
        return {}
    labels = int(labelled.photos.are_random.sum())
    share = len(held_out.targets) / labels
    needed = {}
    for precision in (min_precision, *(lower for lower in _LOWER_PRECISIONS if lower < min_precision)):
        photos = photos_needed(out_of_sample, held_out.groups, precision)
        needed[f"{precision:g}"] = None if photos is None else max(round(photos / share), labels + 1)
    return needed
