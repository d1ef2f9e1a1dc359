"""A classifier while photos are being labelled: fitted within seconds, and judged by randomly chosen photos alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.classifier.chosen import NOT_RECORDED, are_random, random_needed
from flowers_batch.classifier.enough_labels import MIN_CLASSES, MIN_PHOTOS
from flowers_batch.classifier.evaluation import wilson_interval
from flowers_batch.classifier.fitting import LOGISTIC, fit
from flowers_batch.classifier.head import Head
from flowers_batch.classifier.held_out import cross_validate
from flowers_batch.classifier.labelled_codes import LabelledCodes, labelled_codes_in
from flowers_batch.classifier.near_duplicates import group_near_duplicates
from flowers_batch.classifier.normalization import SQRT_L2
from flowers_batch.classifier.promised_precision import promise_precision
from flowers_batch.classifier.regression_choice import Regression
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK, codes_of
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter

_REGRESSION = Regression(SQRT_L2, 100.0)
_NO_CLASS = -1


@dataclass(frozen=True)
class EstimatedAccuracy:
    """The accuracy of a classifier, estimated by cross-validation on randomly chosen photos.

    Attributes:
        value: 0 to 1.
        interval95: Its 95% confidence interval.
        photos: How many photos it rests on.
    """

    value: float
    interval95: tuple[float, float]
    photos: int


@dataclass(frozen=True)
class LabelFit:
    """A classifier that was fitted to the labels so far, and what is known of it.

    Attributes:
        head: With temperature, and with a threshold if a precision can be promised.
        labels: How many labelled photos it was fitted to.
        accuracy: None while too few photos were chosen at random.
        random_needed: How many more of these it takes until the accuracy is known.
        certain_at: The probability from which labels have the wanted precision; None if it cannot be promised yet.
    """

    head: Head
    labels: int
    accuracy: EstimatedAccuracy | None
    random_needed: int
    certain_at: float | None


def fit_labels(
    run: Run,
    labels: Mapping[str, str],
    chosen: Mapping[str, str],
    *,
    min_precision: float,
    seed: int,
    reporter: Reporter = NULL_REPORTER,
) -> LabelFit:
    """Fit a classifier to some labels, in seconds for a few thousand of them.

    Args:
        run: The codes folder.
        labels: By path; those of photos without a code are left out.
        chosen: How photos were chosen, by path, as `chosen.combined` returns it; a path that it lacks counts as
            randomly chosen.
        min_precision: The precision that certain labels must reach with a confidence of 95%.
        seed: Decides on the folds of cross-validation.
        reporter: Receives progress.

    Raises:
        InputError: The labels are too few (see `enough_labels.can_fit`).
    """
    codes, classes, paths = _read_labelled(run, labels, reporter)
    if len(classes) < MIN_CLASSES:
        raise InputError(f"Label at least {MIN_PHOTOS} photos of each of {MIN_CLASSES} classes.")
    ways = [chosen.get(path, NOT_RECORDED) for path in paths]
    head = fit(LOGISTIC, codes, codes, classes, seed, _REGRESSION, reporter).head
    if missing := random_needed(ways):
        return LabelFit(head, len(codes), None, missing, None)
    held_out = cross_validate(codes, classes, seed, _REGRESSION, reporter, judged=are_random(ways))
    head = replace(head, temperature=held_out.temperature())
    top = held_out.top_labels(head.temperature)
    promise = promise_precision(top, held_out.groups, min_precision)
    certain_at = None if promise.bound is None else promise.threshold
    correct = int((top.correct & held_out.predictable).sum())
    low, high = wilson_interval(correct, len(top))
    accuracy = EstimatedAccuracy(correct / len(top), (low, high), len(top))
    return LabelFit(replace(head, threshold=certain_at), len(codes), accuracy, 0, certain_at)


def _read_labelled(
    run: Run, labels: Mapping[str, str], reporter: Reporter
) -> tuple[LabelledCodes, tuple[str, ...], list[str]]:
    """Return codes of the labelled photos that have one, the classes, and the photos' paths."""
    wanted = pa.array(list(labels), pa.string())
    found: list[pa.RecordBatch] = []
    before, columns = 0, ["path", "sha256", "phash", "status"]
    for batch in run.batches(columns):
        is_labelled = pc.and_(pc.is_in(batch["path"], wanted), pc.equal(batch["status"], OK))
        rows = pa.array(before + np.arange(len(batch)))
        found.append(batch.append_column("row", rows).filter(is_labelled))
        before += len(batch)
        reporter.update(Progress(f"looking for labelled photos: {before} of {run.manifest.images}"))
    photos = pa.Table.from_batches(found)
    paths = photos["path"].to_pylist()
    classes, targets = np.unique([labels[path] for path in paths], return_inverse=True)
    groups = group_near_duplicates(np.array(photos["sha256"].to_pylist(), "S32"), photos["phash"].to_numpy())
    codes = labelled_codes_in(run, photos["row"].to_numpy(), targets, groups)
    return codes, tuple(classes.tolist()), paths


@dataclass(frozen=True)
class ArchivePredictions:
    """What a classifier predicts for each row of an archive.

    Attributes:
        labels: int32 [rows]: the likeliest class's number; -1 where the photo has no code.
        probabilities: float32 [rows]: its probability; 0 without a code.
        margins: float32 [rows]: how much more probable it is than the second likeliest class; 0 without a code.
    """

    labels: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    margins: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)


def predict_run(run: Run, head: Head, reporter: Reporter = NULL_REPORTER) -> ArchivePredictions:
    """Return a classifier's predictions for all rows of a codes folder, which is streamed; 12 bytes a row are kept."""
    rows = run.manifest.images
    labels = np.full(rows, _NO_CLASS, np.int32)
    probabilities, margins = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    before = 0
    for batch in run.batches(["code"]):
        codes, is_ok = codes_of(batch)
        found = head.probabilities(codes)
        own = before + np.flatnonzero(is_ok)
        labels[own] = found.argmax(1)
        second, best = np.partition(found, -2, axis=1)[:, -2:].T
        probabilities[own], margins[own] = best, best - second
        before += len(batch)
        reporter.update(Progress(f"predicting: {before} of {rows} photos"))
    return ArchivePredictions(labels, probabilities, margins)
