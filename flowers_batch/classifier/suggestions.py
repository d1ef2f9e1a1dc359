"""Photos that are most worth a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.classifier.label_paths import match_labels
from flowers_batch.classifier.labelled_codes import Codes
from flowers_batch.classifier.labels_file import read_labels, write_labels
from flowers_batch.classifier.medoids import reduce_codes, select_medoids
from flowers_batch.classifier.model_folder import MODEL, read_labelled_digests
from flowers_batch.classifier.near_duplicates import group_near_duplicates
from flowers_batch.classifier.unlabelled import find_codes, sample_unlabelled
from flowers_batch.config import IMAGENET
from flowers_batch.dataset.job import read_job
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter
from flowers_batch.storage.opening import PathOrUrl, open_folder, split_file

MAX_CANDIDATES = 20_000  # photos among which the suggested ones are chosen, if no more are wanted
_MIN_UNCERTAINTY = 0.01  # that a photo counts as having, so that certain ones stay comparable


def suggest(
    folder: PathOrUrl,
    count: int = 100,
    out: PathOrUrl | None = None,
    labels: Sequence[str] = (),
    *,
    model: PathOrUrl | None = None,
    codes: PathOrUrl | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> list[dict[str, Any]]:
    """Find the unlabelled photos that are most worth a label: different from each other, typical, and uncertain.

    A random sample of the archive is divided into `count` clusters of similar codes, and the photo nearest to each
    cluster's centre is chosen. Without a classifier all photos count equally. With predictions only the less certain
    half takes part, and a photo counts by its uncertainty: 1 less the difference between the probabilities of its two
    likeliest labels. If the predictions were made from photos, there are no codes to compare: the least certain
    photos are chosen, without near-duplicates of each other.

    Args:
        folder: One of codes, if there is no classifier yet, or of predictions.
        count: How many photos, 1 or more.
        out: A CSV file for the rows. With its column `label` filled in, it is a labels file for `train`.
        labels: CSV or Parquet files of labels, whose photos are left out. Photos that the classifier of predictions
            was trained on are left out in any case.
        model, codes: Of predictions: the folders of the model and the codes, if they are no longer where `job.json`
            says, or that may not be followed.
        reporter: Receives progress.

    Returns:
        Rows with `path`, `label` (empty) and, from predictions, `prediction` and its `probability`; those that stand
        for most other photos first.

    Raises:
        InputError: The folder holds neither codes nor predictions, or `count` is below 1.
    """
    if count < 1:
        raise InputError(f"`count` must be 1 or more. Received: {count}.")
    if out is not None:
        split_file(out)
    run = _open(folder, {"model": model, "codes": codes})
    given = pa.array({path for file in labels for path in match_labels(read_labels(file).labels, run)}, pa.string())
    rows = sample_unlabelled(run, max(count, MAX_CANDIDATES), _labelled_digests(run), given, reporter)
    chosen = [_suggestion(row) for row in _choose(run, rows, count, reporter).to_pylist()]
    if out is not None:
        predicted = ("prediction", "probability") if run.job.kind == PREDICTIONS else ()
        write_labels(out, ("path", "label", *predicted), chosen)
    return chosen


def _open(folder: PathOrUrl, given: dict[str, PathOrUrl | None]) -> Run:
    """Return the run of a folder of codes or of predictions."""
    job = read_job(open_folder(folder))
    if job is None:
        raise InputError(
            f"{folder} is a folder of neither codes nor predictions: make one with `flowers-batch encode`."
        )
    return open_run(folder, job.kind, given)


def _labelled_digests(run: Run) -> pa.Array:
    """Return SHA-256 of the labelled photos of the predictions' model, also of those in classes that it left out."""
    place = None if run.job.model in (None, IMAGENET) else run.place("model")
    model = open_folder(place) if place else None
    if model is None or not model.exists(MODEL):
        return pa.array([], pa.binary(32))
    return read_labelled_digests(model)


def _choose(run: Run, rows: pa.Table, count: int, reporter: Reporter) -> pa.Table:
    """Return the `count` rows that are most worth a label, in order."""
    if run.job.kind == PREDICTIONS:
        rows = rows.sort_by("margin").slice(0, max(count, len(rows) // 2))
    codes = run if run.job.kind == CODES else _codes_of_predictions(run)
    if codes is None:
        return rows.take(pa.array(_distinct(rows)[:count]))
    positions, found = find_codes(codes, rows["path"].combine_chunks())
    rows = rows.take(pa.array(positions))
    if not len(rows):
        return rows
    margins = rows["margin"].to_numpy() if run.job.kind == PREDICTIONS else None
    return rows.take(pa.array(choose_useful(found, len(rows), margins, count, reporter)))


def choose_useful(
    codes: Codes, photos: int, margins: NDArray[np.floating] | None, count: int, reporter: Reporter = NULL_REPORTER
) -> NDArray[np.int_]:
    """Choose the photos that are most worth a label: different from each other, typical, and uncertain.

    Args:
        codes: Of the photos to choose from.
        photos: How many these are, 1 or more.
        margins: [photos]: the difference between the probabilities of each one's two likeliest labels; None if there is
            no classifier.
        count: How many to choose.
        reporter: Receives progress.

    Returns:
        int [count]: their positions, those that stand for most other photos first; all, if there are fewer.
    """
    weights = np.ones(photos) if margins is None else np.maximum(1 - margins, _MIN_UNCERTAINTY)
    points = reduce_codes(codes, photos, reporter)
    reporter.update(Progress(f"choosing from {photos} photos"))
    return select_medoids(points, weights, count)


def _codes_of_predictions(run: Run) -> Run | None:
    """Return the codes that predictions were made from; None if they were made from photos, or these are gone."""
    place = run.place("codes")
    try:
        return open_run(place, CODES) if place else None
    except InputError:
        return None


def _distinct(rows: pa.Table) -> NDArray[np.int_]:
    """Return the positions of rows, ascending, without those that are near-duplicates of earlier ones."""
    digests = np.array(rows["sha256"].to_pylist(), "S32")
    return np.sort(np.unique(group_near_duplicates(digests, rows["phash"].to_numpy()), return_index=True)[1])


def _suggestion(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as `suggest` returns it."""
    suggestion = {"path": row["path"], "label": ""}
    if "prediction" in row:
        suggestion |= {"prediction": row["prediction"], "probability": round(row["probability"], 4)}
    return suggestion
