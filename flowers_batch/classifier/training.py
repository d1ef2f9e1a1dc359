"""Training of a classifier on codes: labels, split, heads, calibration, and figures on held-out photos."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from flowers_batch.classifier.calibration import fit_temperature, log_loss
from flowers_batch.classifier.evaluated_head import evaluate_head, publish_model
from flowers_batch.classifier.fitting import KINDS, FittedHead, fit, predict_logits
from flowers_batch.classifier.label_sources import absolute_labels
from flowers_batch.classifier.labelled_split import LabelledSplit, split_labelled
from flowers_batch.classifier.split import SPLITS, TRAIN, VALIDATION, assign_splits
from flowers_batch.config import TrainConfig
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter
from flowers_batch.storage.opening import PathOrUrl, open_folder

_CURVE_SHARES = (0.1, 0.25, 0.5)  # of the labels, besides all of them


def train(
    codes: PathOrUrl, model: PathOrUrl, config: TrainConfig | None = None, *, reporter: Reporter = NULL_REPORTER
) -> dict[str, Any]:
    """Train a classifier on the labelled photos of a codes folder, and evaluate it on held-out photos.

    Args:
        codes: The codes folder.
        model: The model folder to write: `head.safetensors`, `model.json`, `metrics.json`, `split.parquet` (each
            labelled photo with its group, its split, and its predicted label) and `labels.parquet` (the labels).
        config: The settings. It names the labels, which have no default.
        reporter: Receives progress.

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: The codes or the labels are not valid.
    """
    config = config or TrainConfig()
    started = time.monotonic()
    run = open_run(codes, CODES, {"images": config.images})
    folder = open_folder(model)
    labelled = split_labelled(run, config, reporter)
    fitted, heads = fit_best(labelled, config, reporter)
    evaluated = evaluate_head(run, labelled, fitted.head, config, reporter)
    metrics = evaluated.metrics
    metrics |= {"head": fitted.kind, "heads": heads}
    # A fine-tuned network has seen the labels of all its training photos: a share of them would look too good.
    if not run.job.tuned_on:
        accuracy = metrics["test"]["accuracy"]
        metrics["learning_curve"] = _learning_curve(labelled, fitted, config.seed, accuracy, reporter)
        if len(labelled.keys) < len(labelled.splits):
            metrics["split"]["accuracy_without_groups"] = _without_groups(labelled, fitted, config.seed, reporter)
    metrics["seconds"] = round(time.monotonic() - started, 3)
    with folder.locked():
        publish_model(folder, run, labelled, evaluated, {"kind": fitted.kind} | training_settings(config))
    return metrics


def training_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings of a training run as `model.json` has them, with names that are valid in any directory."""
    settings = asdict(config) | {"labels": [absolute_labels(name) for name in config.labels]}
    del settings["images"]  # a place, which the model's `images` tells
    return settings


def fit_best(
    labelled: LabelledSplit, config: TrainConfig, reporter: Reporter = NULL_REPORTER
) -> tuple[FittedHead, dict[str, Any]]:
    """Fit the head of `config.head` or, for `auto`, of all kinds the one of the smallest validation log loss.

    Returns:
        The head, and of each kind that was fitted: `validation_accuracy`, `validation_log_loss`, `normalization`, `C`
        and `epochs`.
    """
    train, validation = labelled.codes_of(TRAIN), labelled.codes_of(VALIDATION)
    heads: dict[str, Any] = {}
    best: FittedHead | None = None
    for kind in KINDS if config.head == "auto" else (config.head,):
        fitted = fit(kind, train, validation, labelled.classes, config.seed, reporter=reporter)
        logits = predict_logits(fitted.head, validation, reporter)
        loss = log_loss(logits, validation.targets, fit_temperature(logits, validation.targets))
        heads[kind] = {
            "validation_accuracy": float((logits.argmax(1) == validation.targets).mean()),
            "validation_log_loss": loss,
            "normalization": fitted.head.normalization.name,
            "C": fitted.regression.C if fitted.regression else None,
            "epochs": fitted.epochs,
        }
        if best is None or loss < heads[best.kind]["validation_log_loss"]:
            best = fitted
    assert best
    return best, heads


def _learning_curve(
    labelled: LabelledSplit, fitted: FittedHead, seed: int, accuracy: float, reporter: Reporter
) -> list[dict[str, Any]]:
    """Return the test accuracy of heads fitted to shares of each class's groups; `accuracy` is that of all."""
    train, validation, test = (labelled.codes_of(split) for split in range(len(SPLITS)))
    points = []
    for share in _CURVE_SHARES:
        chosen = np.zeros(len(train), bool)
        for target in range(len(labelled.classes)):
            own = np.unique(train.groups[train.targets == target])
            # By key, so that a larger share contains the smaller ones.
            taken = own[np.argsort(labelled.keys[own])][: max(1, round(share * len(own)))]
            chosen |= (train.targets == target) & np.isin(train.groups, taken)
        part = train[chosen]
        reporter.update(Progress(f"learning curve: {share:.0%} of the labels"))
        head = fit(fitted.kind, part, validation, labelled.classes, seed, fitted.regression, reporter).head
        correct = predict_logits(head, test, reporter).argmax(1) == test.targets
        points.append({"share": share, "photos": len(part), "accuracy": float(correct.mean())})
    return [*points, {"share": 1.0, "photos": len(train), "accuracy": accuracy}]


def _without_groups(labelled: LabelledSplit, fitted: FittedHead, seed: int, reporter: Reporter) -> float:
    """Return the test accuracy that a random split reports, in which near-duplicates may be in different splits."""
    codes = labelled.codes
    alone = np.arange(len(codes))
    keys = np.random.default_rng(seed).random(len(codes))
    splits = assign_splits(keys, alone, codes.targets)
    train, validation, test = (codes[splits == split] for split in range(len(SPLITS)))
    head = fit(fitted.kind, train, validation, labelled.classes, seed, fitted.regression, reporter).head
    return float((predict_logits(head, test, reporter).argmax(1) == test.targets).mean())
