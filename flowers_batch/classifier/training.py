"""Trains a classifier on codes: labels, split, heads, calibration, and honest figures."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from flowers_batch.classifier.evaluated_head import evaluate_head, publish
from flowers_batch.classifier.evaluation import (
    fit_temperature,
    log_loss,
)
from flowers_batch.classifier.fitting import KINDS, Fitted, fit, logits_of
from flowers_batch.classifier.labelled_split import LabelledSplit, divide
from flowers_batch.classifier.labels import lasting
from flowers_batch.classifier.model_folder import NETWORK
from flowers_batch.classifier.split import TRAIN, VALIDATION, split
from flowers_batch.config import TrainConfig
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter
from flowers_batch.storage.folder import PathOrUrl, open_folder

_CURVE = (0.1, 0.25, 0.5)  # shares of the labels, besides all of them


def train(
    codes: PathOrUrl, model: PathOrUrl, config: TrainConfig | None = None, *, reporter: Reporter = NULL_REPORTER
) -> dict[str, Any]:
    """Trains a classifier on the labelled photos of a codes folder, and says how good it is.

    Args:
        codes: The codes folder.
        model: The model folder: it gets `head.safetensors`, `model.json`, `metrics.json` and `split.parquet`
            (each labelled photo with its group, its side of the split, and what the classifier says of it).
        config: How; the defaults are the command's.
        reporter: Receives how it goes.

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: The codes or the labels are not as they must be.
    """
    config = config or TrainConfig()
    begun = time.monotonic()
    run = open_run(codes, CODES)
    folder = open_folder(model)
    photos = divide(run, config, reporter)
    fitted, tried = _fit_best(photos, config, reporter)
    judged = evaluate_head(run, photos, fitted.head, config, reporter)
    metrics = judged.metrics
    metrics |= {"head": fitted.kind, "heads": tried}
    if run.job.weights.rpartition("/")[2] != NETWORK:  # which has seen all the labels of its training side
        metrics["learning_curve"] = _learning_curve(photos, fitted, config.seed, metrics["test"]["accuracy"], reporter)
        if len(photos.values) < len(photos.sides):
            metrics["split"]["accuracy_without_groups"] = _without_groups(photos, fitted, config.seed, reporter)
    metrics["seconds"] = round(time.monotonic() - begun, 3)
    with folder.locked():
        publish(folder, run, photos, judged, {"kind": fitted.kind} | described(config))
    return metrics


def described(config: TrainConfig) -> dict[str, Any]:
    """What was asked of a training, by names that are right from any folder."""
    return asdict(config) | {"labels": [lasting(name) for name in config.labels]}


def _fit_best(photos: LabelledSplit, config: TrainConfig, reporter: Reporter) -> tuple[Fitted, dict[str, Any]]:
    """The head that was asked for or, of all kinds, the one of the least log loss on validation.

    Also what each kind came to.
    """
    train, validation = photos.side(TRAIN), photos.side(VALIDATION)
    tried: dict[str, Any] = {}
    best: Fitted | None = None
    for kind in KINDS if config.head == "auto" else (config.head,):
        fitted = fit(kind, train, validation, photos.classes, config.seed, reporter=reporter)
        logits = logits_of(fitted.head, validation, reporter)
        temperature = fit_temperature(logits, validation.targets)
        loss = log_loss(logits, validation.targets, temperature)
        tried[kind] = {
            "validation_accuracy": float((logits.argmax(1) == validation.targets).mean()),
            "validation_log_loss": loss,
            "C": fitted.C,
            "epochs": fitted.epochs,
        }
        if best is None or loss < tried[best.kind]["validation_log_loss"]:
            best = fitted
    assert best
    return best, tried


def _learning_curve(
    photos: LabelledSplit, fitted: Fitted, seed: int, accuracy: float, reporter: Reporter
) -> list[dict[str, Any]]:
    """Test accuracy of heads that were fitted to shares of the labels, whole groups, and as much of each class."""
    train, validation, test = (photos.side(side) for side in range(3))
    points = []
    for share in _CURVE:
        chosen = np.zeros(len(train), bool)
        for target in range(len(photos.classes)):
            own = np.unique(train.groups[train.targets == target])
            # By value, so that a larger share holds the smaller ones.
            taken = own[np.argsort(photos.values[own])][: max(1, round(share * len(own)))]
            chosen |= (train.targets == target) & np.isin(train.groups, taken)
        part = train[chosen]
        reporter.update(Progress(f"learning curve: {share:.0%} of the labels"))
        head = fit(fitted.kind, part, validation, photos.classes, seed, fitted.C, reporter).head
        right = logits_of(head, test, reporter).argmax(1) == test.targets
        points.append({"share": share, "photos": len(part), "accuracy": float(right.mean())})
    return [*points, {"share": 1.0, "photos": len(train), "accuracy": accuracy}]


def _without_groups(photos: LabelledSplit, fitted: Fitted, seed: int, reporter: Reporter) -> float:
    """The accuracy that would have been found, had copies been allowed on both sides."""
    sample = photos.sample
    alone = np.arange(len(sample))
    sides = split(np.random.default_rng(seed).random(len(sample)), alone, sample.targets, list(photos.classes))
    train, validation, test = (sample[sides == side] for side in range(3))
    head = fit(fitted.kind, train, validation, photos.classes, seed, fitted.C, reporter).head
    return float((logits_of(head, test, reporter).argmax(1) == test.targets).mean())
