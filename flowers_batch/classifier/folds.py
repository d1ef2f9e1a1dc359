"""Folds of cross-validation; near-duplicates share one, and classes are spread evenly."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

NO_FOLD = -1  # of photos that are in all training parts


def assign_folds(targets: NDArray[np.int_], groups: NDArray[np.int_], count: int, seed: int) -> NDArray[np.int_]:
    """Return the fold of each photo, int [N], counted from 0.

    Args:
        targets: int [N]: each photo's class.
        groups: int [N]: each photo's group of near-duplicates.
        count: How many folds; there are fewer if no class has so many photos, and one if no class has two.
        seed: Shuffles the groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = np.zeros(len(targets), np.int64)
    count = min(count, int(np.bincount(targets).max()), len(np.unique(groups)))  # scikit-learn refuses more
    if count < 2:  # nothing can be in another fold
        return folds
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer photos than folds
        for fold, (_, outside) in enumerate(splitter.split(targets, targets, groups)):
            folds[outside] = fold
    return folds


def is_predictable(targets: NDArray[np.int_], folds: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Return which photos' classes have photos in other folds, too, bool [N]; no other can be predicted out of fold."""
    pairs = np.unique(np.stack([targets, folds]), axis=1)
    return np.bincount(pairs[0], minlength=targets.max(initial=0) + 1)[targets] > 1
