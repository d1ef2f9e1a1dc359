"""Training of a classifier on codes: labels, split, heads, calibration, and figures on held-out photos."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from flowers_batch.classifier.calibration import fit_temperature, log_loss
from flowers_batch.classifier.evaluated_head import evaluate_head
from flowers_batch.classifier.fitting import KINDS, LOGISTIC, MLP, FittedHead, fit, predict_logits
from flowers_batch.classifier.held_out import HeldOut, cross_validate, hold_out
from flowers_batch.classifier.keyword_classes import expand_classes
from flowers_batch.classifier.label_sources import absolute_labels
from flowers_batch.classifier.labelled_split import LabelledSplit, split_labelled
from flowers_batch.classifier.learning import describe_learning
from flowers_batch.classifier.publication import publish_model
from flowers_batch.classifier.regression_choice import choose_regression
from flowers_batch.classifier.split import SPLITS, TEST, TRAIN, VALIDATION
from flowers_batch.config import TrainConfig
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.storage.opening import PathOrUrl, open_folder

_MAX_CROSS_VALIDATED = 10_000  # labelled photos; of more, a tenth is enough to validate


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
    return train_once(codes, model, config or TrainConfig(), reporter)


def train_once(
    codes: PathOrUrl, model: PathOrUrl, config: TrainConfig, reporter: Reporter, *, keeps_validation: bool = False
) -> dict[str, Any]:
    """Do what `train` does; with `keeps_validation`, fit to no validation photo, however few photos there are."""
    started = time.monotonic()
    config = replace(config, classes=expand_classes(config.classes))  # a file of them may change meanwhile
    run = open_run(codes, CODES, {"images": config.images})
    folder = open_folder(model)
    labelled = split_labelled(run, config, reporter)
    if keeps_validation or not _can_cross_validate(labelled, config):
        _check_random(labelled)
        fitted, heads = fit_best(labelled, config, reporter)
        held_out = hold_out(fitted.head, labelled.codes_of(VALIDATION), reporter)
    else:
        labelled = labelled.without_validation()
        fitted, heads, held_out = fit_cross_validated(labelled, config, reporter)
    evaluated = evaluate_head(run, labelled, fitted.head, held_out, config, reporter)
    metrics = evaluated.metrics
    metrics |= {"head": fitted.kind, "heads": heads}
    # A fine-tuned network has seen the labels of all its training photos: a share of them would look too good.
    if not run.job.tuned_on and metrics["accuracy_of"]:
        learning = describe_learning(labelled, fitted, held_out, config.seed, reporter)
        metrics["split"]["accuracy_without_groups"] = learning.pop("accuracy_without_groups")
        metrics |= learning
    metrics["seconds"] = round(time.monotonic() - started, 3)
    with folder.locked():
        publish_model(folder, run, labelled, evaluated, {"kind": fitted.kind} | training_settings(config))
    return metrics


def training_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings of a training run as `model.json` has them, with names that are valid in any directory."""
    settings = asdict(config) | {"labels": [absolute_labels(name) for name in config.labels]}
    settings["classes"] = list(expand_classes(config.classes))
    del settings["images"]  # a place, which the model's `images` tells
    return settings


def _check_random(labelled: LabelledSplit) -> None:
    """Refuse labels of which too few can validate and test."""
    needed = labelled.random_needed
    if needed or len(np.unique(labelled.splits)) < len(SPLITS):
        raise InputError(
            "Too few of the labelled photos were chosen at random, which alone validate and test: label "
            f"{max(needed, 1)} more of those that `review` marks as random."
        )


def _can_cross_validate(labelled: LabelledSplit, config: TrainConfig) -> bool:
    """Return whether a regression is fitted to so few photos that it can be fitted once for each fold.

    A network takes validation photos to stop in time.
    """
    is_small = len(labelled.codes) <= _MAX_CROSS_VALIDATED and labelled.codes.is_in_memory
    return is_small and config.head != MLP


def fit_cross_validated(
    labelled: LabelledSplit, config: TrainConfig, reporter: Reporter = NULL_REPORTER
) -> tuple[FittedHead, dict[str, Any], HeldOut]:
    """Fit a logistic regression to all photos but the test photos.

    Returns:
        The head; its `normalization` and `C`, by its kind; and predictions out of fold.
    """
    development = labelled.codes[labelled.splits != TEST].loaded()
    regression = choose_regression(development, len(labelled.classes), config.seed, reporter)
    judged = labelled.photos.are_random[labelled.splits != TEST]
    held_out = cross_validate(development, labelled.classes, config.seed, regression, reporter, judged=judged)
    fitted = fit(LOGISTIC, development, development, labelled.classes, config.seed, regression, reporter)
    description = {"normalization": regression.normalization, "C": regression.C}
    return fitted, {LOGISTIC: description}, held_out


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
