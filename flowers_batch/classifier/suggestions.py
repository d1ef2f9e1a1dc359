"""Photos that a person should look at: labels that are probably wrong, and photos that are most worth a label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.classifier.fitting import predict_out_of_fold
from flowers_batch.classifier.label_paths import match_labels
from flowers_batch.classifier.labelled_codes import labelled_codes_in
from flowers_batch.classifier.labels import read_labelled
from flowers_batch.classifier.labels_file import read_labels, write_labels
from flowers_batch.classifier.model_folder import MODEL, load_model, read_labelled_digests, training_labels
from flowers_batch.classifier.near_duplicates import MAX_DISTANCE, group_near_duplicates
from flowers_batch.config import IMAGENET
from flowers_batch.dataset.following import follow
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES, PREDICTIONS, codes_of
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.storage.opening import PathOrUrl, open_folder, split_file

_CANDIDATES_PER_PHOTO = 10  # least certain photos among which each suggested one is chosen
_SEED = 0


def label_issues(
    model: PathOrUrl,
    out: PathOrUrl | None = None,
    *,
    codes: PathOrUrl | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> list[dict[str, Any]]:
    """Find labels that are probably wrong, by confident learning (Northcutt, Jiang and Chuang, 2021).

    Each photo's probabilities come from a classifier that was fitted to neither it nor a near-duplicate of it.

    Args:
        model: The model folder; its codes are read again, and its copy of the labels that it was trained on.
        out: A CSV file for the rows. With its column `label` corrected, it is a labels file for `train`.
        codes: The folder of its codes, if it is no longer where the model says, or that may not be followed.
        reporter: Receives progress.

    Returns:
        Rows with `path`, `label`, `suggested` and the `probability` of `suggested`, the most confident first.

    Raises:
        InputError: The model, its codes or its labels do not exist.
    """
    from cleanlab.filter import find_label_issues

    if out is not None:
        split_file(out)  # refuses what cannot be written before the work
    trained = load_model(model)
    run = open_run(follow(open_folder(model), MODEL, "codes", trained.codes, codes), CODES)
    labelled = read_labelled(run, training_labels(open_folder(model), trained))
    labelled = labelled[np.isin(labelled.labels, trained.head.classes)]  # others were too few to be trained
    classes, targets = np.unique(labelled.labels, return_inverse=True)
    groups = group_near_duplicates(labelled.digests, labelled.hashes)
    labelled_codes = labelled_codes_in(run, labelled.rows, targets, groups)
    probabilities = predict_out_of_fold(labelled_codes, tuple(classes.tolist()), _SEED, reporter)
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
    predictions: PathOrUrl,
    count: int = 100,
    out: PathOrUrl | None = None,
    labels: Sequence[str] = (),
    *,
    model: PathOrUrl | None = None,
    codes: PathOrUrl | None = None,
) -> list[dict[str, Any]]:
    """Find the unlabelled photos that are most worth a label: uncertain, and different from each other.

    Among the photos of the smallest margin between the two likeliest labels, choose one after the other the photo
    whose uncertainty (1 - margin) times its distance to the photos chosen before is largest. The distance is that of
    codes (1 - cosine), if the predictions were made from codes; else that of perceptual hashes, which only tells
    near-duplicates apart.

    Args:
        predictions: A folder of predictions.
        count: How many photos, 1 or more.
        out: A CSV file for the rows. With its column `label` filled in, it is a labels file for `train`.
        labels: CSV or Parquet files of labels that were given since the model was trained; their photos are left out.
        model, codes: The folders of the model and the codes, if they are no longer where `job.json` says, or that may
            not be followed.

    Returns:
        Rows with `path`, `label` (empty), `prediction` and its `probability`, in the order in which they were chosen.

    Raises:
        InputError: The folder holds no predictions, or `count` is below 1.
    """
    if count < 1:
        raise InputError(f"`count` must be 1 or more. Received: {count}.")
    if out is not None:
        split_file(out)
    run = open_run(predictions, PREDICTIONS, {"model": model, "codes": codes})
    given = pa.array({path for file in labels for path in match_labels(read_labels(file).labels, run)}, pa.string())
    rows = _least_certain(run, count * _CANDIDATES_PER_PHOTO, _labelled_digests(run), given)
    order = [] if not len(rows) else select_diverse(1 - rows["margin"].to_numpy(), _distances(run, rows), count)
    chosen = [
        {"path": row["path"], "label": "", "prediction": row["prediction"], "probability": round(row["probability"], 4)}
        for row in rows.take(pa.array(order, pa.int64())).to_pylist()
    ]
    if out is not None:
        write_labels(out, ("path", "label", "prediction", "probability"), chosen)
    return chosen


def _labelled_digests(run: Run) -> pa.Array:
    """Return SHA-256 of the labelled photos of the predictions' model, also of those in classes that it left out."""
    place = None if run.job.model == IMAGENET else run.place("model")
    model = open_folder(place) if place else None
    if model is None or not model.exists(MODEL):
        return pa.array([], pa.binary(32))
    return read_labelled_digests(model)


def _least_certain(run: Run, count: int, labelled: pa.Array, given: pa.Array) -> pa.Table:
    """Return the `count` rows of the smallest margins; of equal files, one.

    At most `count` rows and one batch are in memory at a time.

    Args:
        run: The predictions.
        count: How many rows.
        labelled: SHA-256 of photos to leave out.
        given: Paths of photos to leave out.
    """
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
    """Return the distances of all pairs of rows, float64 [rows, rows]."""
    place = run.place("codes")
    codes = _codes(place, rows) if place else None
    if codes is None:
        hashes = rows["phash"].to_numpy()
        return (np.bitwise_count(hashes[:, None] ^ hashes[None]) > MAX_DISTANCE).astype(np.float64)
    centred = codes - codes.mean(0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return np.maximum(0, 1 - centred @ centred.T)


def _codes(folder: str, rows: pa.Table) -> NDArray[np.floating] | None:
    """Return the codes [rows, width] of rows of predictions; None if the codes folder no longer exists."""
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


def select_diverse(scores: NDArray[np.floating], distances: NDArray[np.float64], count: int) -> list[int]:
    """Choose rows one after the other, by score times distance to the nearest row chosen before.

    Args:
        scores: [rows], 0 or more.
        distances: [rows, rows].
        count: How many rows; all of them, if there are fewer.

    Returns:
        The rows' positions, in the order in which they were chosen.
    """
    chosen: list[int] = []
    nearest = np.ones(len(scores))
    for _ in range(min(count, len(scores))):
        weighted = scores * nearest
        weighted[chosen] = -1
        chosen.append(int(weighted.argmax()))
        nearest = np.minimum(nearest, distances[chosen[-1]])
    return chosen
