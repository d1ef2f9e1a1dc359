"""Labels that are probably wrong."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import fit_temperature
from flowers_batch.classifier.fitting import predict_out_of_fold
from flowers_batch.classifier.folds import assign_folds, is_predictable
from flowers_batch.classifier.labelled_codes import LabelledCodes, labelled_codes_in
from flowers_batch.classifier.labels import read_labelled
from flowers_batch.classifier.labels_file import write_labels
from flowers_batch.classifier.model_folder import MODEL, load_model, training_labels
from flowers_batch.classifier.near_duplicates import group_near_duplicates
from flowers_batch.classifier.regression_choice import choose_regression
from flowers_batch.dataset.following import follow
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.storage.opening import PathOrUrl, open_folder, split_file

_SEED, _FOLDS = 0, 5  # of predictions out of fold
_COLUMNS = ("path", "label", "label_probability", "suggested", "probability")


def label_issues(
    model: PathOrUrl,
    out: PathOrUrl | None = None,
    *,
    codes: PathOrUrl | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> list[dict[str, Any]]:
    """Find labels that are probably wrong.

    Each photo's probabilities come from a classifier that was fitted to neither it nor a near-duplicate of it. The
    labels of the lowest probability are listed, as many as confident learning estimates to be wrong (Northcutt, Jiang
    and Chuang, 2021).

    Args:
        model: The model folder; its codes are read again, and its copy of the labels that it was trained on.
        out: A CSV file for the rows. With its column `label` corrected, it is a labels file for `train`.
        codes: The folder of its codes, if it is no longer where the model says, or that may not be followed.
        reporter: Receives progress.

    Returns:
        Rows with `path`, `label` and its `label_probability`, and the likeliest label, `suggested`, with its
        `probability`; the least probable labels first.

    Raises:
        InputError: The model, its codes or its labels do not exist.
    """
    if out is not None:
        split_file(out)  # refuses what cannot be written before the work
    trained = load_model(model)
    run = open_run(follow(open_folder(model), MODEL, "codes", trained.codes, codes), CODES)
    rows = issues_among(run, training_labels(open_folder(model), trained), trained.head.classes, reporter)
    if out is not None:
        write_labels(out, _COLUMNS, rows)
    return rows


def issues_among(
    run: Run, labels: Sequence[str], among: Sequence[str] | None = None, reporter: Reporter = NULL_REPORTER
) -> list[dict[str, Any]]:
    """Find labels of a codes folder that are probably wrong.

    Args:
        run: The codes folder.
        labels: As for `read_labelled`.
        among: The classes whose labels are judged; None: all.
        reporter: Receives progress.

    Returns:
        Rows as `label_issues` returns them.

    Raises:
        InputError: As `read_labelled` raises it.
    """
    labelled = read_labelled(run, labels)
    if among is not None:
        labelled = labelled[np.isin(labelled.labels, among)]  # others were too few to be trained
    classes, targets = np.unique(labelled.labels, return_inverse=True)
    groups = group_near_duplicates(labelled.digests, labelled.hashes)
    labelled_codes = labelled_codes_in(run, labelled.rows, targets, groups)
    probabilities = _predict(labelled_codes, tuple(classes.tolist()), reporter)
    return [
        {
            "path": labelled.paths[row],
            "label": classes[targets[row]].item(),
            "label_probability": round(float(probabilities[row, targets[row]]), 4),
            "suggested": classes[probabilities[row].argmax()].item(),
            "probability": round(float(probabilities[row].max()), 4),
        }
        for row in find_wrong_labels(probabilities, targets).tolist()
    ]


def _predict(labelled: LabelledCodes, classes: tuple[str, ...], reporter: Reporter) -> NDArray[np.float64]:
    """Return calibrated probabilities [N, classes], each by a classifier fitted to no near-duplicate of the photo.

    A photo whose class no other fold has cannot be judged: its label counts as certain.
    """
    from scipy.special import softmax

    targets = labelled.targets
    probabilities = np.eye(len(classes))[targets]
    folds = assign_folds(targets, labelled.groups, _FOLDS, _SEED)
    judged = is_predictable(targets, folds)
    if judged.any():
        regression = choose_regression(labelled, len(classes), _SEED, reporter)
        logits = predict_out_of_fold(labelled, classes, folds, _SEED, regression, reporter)[judged]
        temperature = fit_temperature(logits, targets[judged])
        probabilities[judged] = softmax(logits.astype(np.float64) / temperature, axis=1)
    return probabilities


def find_wrong_labels(probabilities: NDArray[np.floating], targets: NDArray[np.int_]) -> NDArray[np.int_]:
    """Return the photos whose labels are probably wrong, the least probable labels first.

    Confident learning says how many. Which ones, the probability of the label tells better than the margin to the
    likeliest label, by which confident learning prunes.

    Args:
        probabilities: [N, classes], of classifiers that were not fitted to the photo.
        targets: int [N]: the photos' labels.
    """
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with few photos, of which not all issues may be found
        pruned = find_label_issues(targets, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    order = np.argsort(probabilities[np.arange(len(targets)), targets], kind="stable")[: pruned.sum()]
    return order[probabilities[order].argmax(1) != targets[order]]
