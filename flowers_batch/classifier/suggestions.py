"""Photos that a person should look at: labels that look wrong, and photos whose labels would teach most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.classifier.fitting import out_of_fold
from flowers_batch.classifier.labelled_codes import labelled_codes_in
from flowers_batch.classifier.labels import read_labelled, read_labels, write_labels
from flowers_batch.classifier.model_folder import MODEL, load_model, read_split
from flowers_batch.classifier.near_duplicates import NEAR, group
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES, PREDICTIONS, codes_of
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.storage.folder import PathOrUrl, open_folder

_CONSIDERED = 10  # of the least certain photos, for each one that is asked for
_SEED = 0


def label_issues(
    model: PathOrUrl, out: PathOrUrl | None = None, *, reporter: Reporter = NULL_REPORTER
) -> list[dict[str, Any]]:
    """Finds labelled photos whose label looks wrong, by confident learning (Northcutt, Jiang and Chuang, 2021).

    Each photo is judged by a classifier that saw neither it nor a copy of it.

    Args:
        model: The model folder: its codes and the labels that it was trained on are read again.
        out: A CSV file that gets the rows; its column `label` is to be corrected, and given to `train` as `labels`.
        reporter: Receives how it goes.

    Returns:
        The most certainly wrong first: `path`, `label`, `suggested`, and the `probability` of what is suggested.

    Raises:
        InputError: There is no such model, or its codes or labels are gone.
    """
    from cleanlab.filter import find_label_issues

    trained = load_model(model)
    run = open_run(trained.codes, CODES)
    labelled = read_labelled(run, trained.training["labels"])
    classes, targets = np.unique(labelled.labels, return_inverse=True)
    sample = labelled_codes_in(run, labelled.rows, targets, group(labelled.digests, labelled.hashes))
    probabilities = out_of_fold(sample, tuple(classes.tolist()), _SEED, reporter)
    found = find_label_issues(targets, probabilities, return_indices_ranked_by="normalized_margin", n_jobs=1)
    rows = [
        {
            "path": labelled.paths[row],
            "label": classes[targets[row]].item(),
            "suggested": classes[probabilities[row].argmax()].item(),
            "probability": round(float(probabilities[row].max()), 4),
        }
        for row in found
    ]
    if out is not None:
        write_labels(out, ("path", "label", "suggested", "probability"), rows)
    return rows


def suggest(
    predictions: PathOrUrl, count: int = 100, out: PathOrUrl | None = None, labels: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Finds the photos without a label that are most worth one: uncertain, and different from each other.

    Of the least certain (by the margin between the two likeliest labels) those are chosen, one after the other, whose
    uncertainty times the distance to the ones before is largest: of their codes where predictions were made from
    codes, else of their perceptual hashes, which tell copies only.

    Args:
        predictions: A folder of predictions.
        count: How many photos.
        out: A CSV file that gets the rows; its column `label` is to be filled in, and given to `train` as `labels`.
        labels: CSV or Parquet files of labels that were given since: their photos have one.

    Returns:
        `path`, `label` (empty), `prediction` and its `probability`; the most worth first.

    Raises:
        InputError: It is no such folder, or `count` is below 1.
    """
    if count < 1:
        raise InputError(f"-n must be 1 or more. Received: {count}.")
    run = open_run(predictions, PREDICTIONS)
    given = pa.array(sorted({path for file in labels for path in read_labels(file).labels}), pa.string())
    rows = _least_certain(run, count * _CONSIDERED, _labelled_digests(run), given)
    order = [] if not len(rows) else _spread(1 - rows["margin"].to_numpy(), _distances(run, rows), count)
    chosen = [
        {"path": row["path"], "label": "", "prediction": row["prediction"], "probability": round(row["probability"], 4)}
        for row in rows.take(pa.array(order, pa.int64())).to_pylist()
    ]
    if out is not None:
        write_labels(out, ("path", "label", "prediction", "probability"), chosen)
    return chosen


def _labelled_digests(run: Run) -> pa.Array:
    """SHA-256 of the photos that the predictions' model was trained, validated or tested on."""
    model = open_folder(run.job.model) if run.job.model else None
    if model is None or not model.exists(MODEL):
        return pa.array([], pa.binary(32))
    return read_split(model, ["sha256"])["sha256"].combine_chunks()


def _least_certain(run: Run, count: int, labelled: pa.Array, given: pa.Array) -> pa.Table:
    """The rows of the smallest margins, equal files once, as they come: no more are ever held than twice as many."""
    columns = ["path", "sha256", "phash", "prediction", "probability", "top_probabilities"]
    kept: pa.Table | None = None
    for batch in run.batches(columns):
        rows = pa.Table.from_batches([batch.filter(batch["prediction"].is_valid())])
        known = pc.or_(pc.is_in(rows["sha256"], labelled), pc.is_in(rows["path"], given))
        rows = rows.filter(pc.invert(known))
        tops = rows["top_probabilities"].to_pylist()
        margins = np.array([top[0] - top[1] if len(top) > 1 else top[0] for top in tops], np.float64)
        rows = rows.drop_columns(["top_probabilities"]).append_column("margin", pa.array(margins))
        kept = rows if kept is None else pa.concat_tables([kept, rows])
        kept = kept.sort_by([("margin", "ascending"), ("path", "ascending")])
        first = np.unique(np.array(kept["sha256"].to_pylist(), "S32"), return_index=True)[1]
        kept = kept.take(pa.array(np.sort(first)[:count]))
    assert kept is not None
    return kept


def _distances(run: Run, rows: pa.Table) -> NDArray[np.float64]:
    """How different rows are from each other, float64 [rows, rows]."""
    codes = _codes(run.job.codes, rows) if run.job.codes else None
    if codes is None:
        hashes = rows["phash"].to_numpy()
        return (np.bitwise_count(hashes[:, None] ^ hashes[None]) > NEAR).astype(np.float64)
    centred = codes - codes.mean(0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return np.maximum(0, 1 - centred @ centred.T)


def _codes(folder: str, rows: pa.Table) -> NDArray[np.floating] | None:
    """Codes [rows, width] of rows of predictions; None where the codes folder is gone."""
    try:
        source = open_run(folder, CODES)
    except InputError:
        return None
    position = {path: number for number, path in enumerate(rows["path"].to_pylist())}
    found: NDArray[np.float64] | None = None
    wanted = pa.array(position, pa.string())
    for batch in source.batches(["path", "code"]):
        batch = batch.filter(pc.is_in(batch["path"], wanted))
        codes, _ = codes_of(batch)
        if found is None:
            found = np.zeros((len(position), codes.shape[1]))
        found[[position[path] for path in batch["path"].to_pylist()]] = codes
    return found


def _spread(worth: NDArray[np.floating], distances: NDArray[np.float64], count: int) -> list[int]:
    """Rows of the largest worth times distance to those before, one after the other."""
    chosen: list[int] = []
    nearest = np.ones(len(worth))
    for _ in range(min(count, len(worth))):
        score = worth * nearest
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        nearest = np.minimum(nearest, distances[chosen[-1]])
    return chosen
