"""What more labels, or near-duplicates in different splits, would change about the accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.evaluation import compare, wilson_interval
from flowers_batch.classifier.fitting import FittedHead, fit, predict_logits
from flowers_batch.classifier.held_out import HeldOut, cross_validate
from flowers_batch.classifier.labelled_codes import LabelledCodes
from flowers_batch.classifier.labelled_split import LabelledSplit
from flowers_batch.classifier.metrics_sentences import ALPHA
from flowers_batch.classifier.split import SPLITS, TEST, TRAIN, VALIDATION, assign_splits
from flowers_batch.progress import Progress, Reporter

_CURVE_SHARES = (0.1, 0.25, 0.5)  # of the labels, besides all of them


def describe_learning(
    labelled: LabelledSplit, fitted: FittedHead, held_out: HeldOut, seed: int, reporter: Reporter
) -> dict[str, Any]:
    """Return what `metrics.json` says about shares of the labels, and about splits that ignore near-duplicates.

    Args:
        labelled: The labelled photos.
        fitted: The head that was fitted to all labels.
        held_out: Its held-out predictions. If they are cross-validated, so are all figures here; otherwise they are
            those of the test photos.
        seed: As for `fit`.
        reporter: Receives progress.

    Returns:
        - `learning_curve`: `share`, `photos` and `accuracy` of growing shares of each class's groups.
        - `learning_gain`: `gain`, the accuracy that the second half of the labels adds, and its `p_value`.
        - `accuracy_without_groups`: of a split in which near-duplicates may be in different parts, if that is higher
          by more than noise; else None.
    """
    judge = _cross_validated if held_out.is_cross_validated else _tested
    train = labelled.codes_of(TRAIN)
    if held_out.is_cross_validated:
        all_correct = held_out.correct
    else:
        all_correct = _tested(labelled, fitted, np.ones(len(train), bool), seed, reporter)
    points, before = [], all_correct
    for share, chosen in _shares(labelled, train):
        reporter.update(Progress(f"learning curve: {share:.0%} of the labels"))
        before = judge(labelled, fitted, chosen, seed, reporter)
        points.append({"share": share, "photos": int(chosen.sum()), "accuracy": float(before.mean())})
    points.append({"share": 1.0, "photos": len(train), "accuracy": float(all_correct.mean())})
    gain = compare(all_correct, before)
    without = None
    if len(labelled.keys) < len(labelled.splits):
        without = _without_groups(labelled, fitted, held_out, all_correct, seed, reporter)
    return {
        "learning_curve": points,
        "learning_gain": {name: gain[name] for name in ("gain", "p_value")},
        "accuracy_without_groups": without,
    }


def _shares(labelled: LabelledSplit, train: LabelledCodes) -> Iterator[tuple[float, NDArray[np.bool_]]]:
    """Yield shares, and which of the training photos are in each of them; a larger one contains the smaller ones."""
    for share in _CURVE_SHARES:
        chosen = np.zeros(len(train), bool)
        for target in range(len(labelled.classes)):
            own = np.unique(train.groups[train.targets == target])
            taken = own[np.argsort(labelled.keys[own])][: max(1, round(share * len(own)))]
            chosen |= (train.targets == target) & np.isin(train.groups, taken)
        yield share, chosen


def _cross_validated(
    labelled: LabelledSplit, fitted: FittedHead, chosen: NDArray[np.bool_], seed: int, reporter: Reporter
) -> NDArray[np.bool_]:
    """Return which photos are labelled correctly out of fold, by heads that were fitted to those that are chosen."""
    assert fitted.regression
    train = labelled.codes_of(TRAIN)
    judged = labelled.random_of(TRAIN)
    found = cross_validate(train, labelled.classes, seed, fitted.regression, reporter, trained=chosen, judged=judged)
    return found.correct


def _tested(
    labelled: LabelledSplit, fitted: FittedHead, chosen: NDArray[np.bool_], seed: int, reporter: Reporter
) -> NDArray[np.bool_]:
    """Return which test photos are labelled correctly by a head that was fitted to those that are chosen."""
    train, validation, test = (labelled.codes_of(split) for split in (TRAIN, VALIDATION, TEST))
    head = fitted.head
    if not chosen.all():
        part = train[chosen]
        head = fit(fitted.kind, part, validation, labelled.classes, seed, fitted.regression, reporter).head
    return predict_logits(head, test, reporter).argmax(1) == test.targets


def _without_groups(
    labelled: LabelledSplit,
    fitted: FittedHead,
    held_out: HeldOut,
    correct: NDArray[np.bool_],
    seed: int,
    reporter: Reporter,
) -> float | None:
    """Return the accuracy of a split that ignores near-duplicates, if it is higher by more than noise."""
    if held_out.is_cross_validated and fitted.regression:
        train = labelled.codes_of(TRAIN)
        alone, judged = np.arange(len(train)), labelled.random_of(TRAIN)
        found = cross_validate(train, labelled.classes, seed, fitted.regression, reporter, groups=alone, judged=judged)
        apart = (found.logits.argmax(1) == found.targets)[held_out.predictable]
        compared = compare(apart, correct)
        return float(apart.mean()) if compared["gain"] > 0 and compared["p_value"] < ALPHA else None
    codes = labelled.codes
    keys = np.random.default_rng(seed).random(len(codes))
    splits = assign_splits(keys, np.arange(len(codes)), codes.targets, are_random=labelled.photos.are_random)
    train, validation, test = (codes[splits == split] for split in range(len(SPLITS)))
    head = fit(fitted.kind, train, validation, labelled.classes, seed, fitted.regression, reporter).head
    apart = predict_logits(head, test, reporter).argmax(1) == test.targets
    intervals = [wilson_interval(int(each.sum()), len(each)) for each in (apart, correct)]
    is_higher = intervals[0][0] > intervals[1][1]
    return float(apart.mean()) if is_higher else None
