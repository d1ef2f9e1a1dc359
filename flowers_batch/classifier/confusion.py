"""Confusion matrices of any number of classes: the cells that are not zero, as `metrics.json` has them."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

_DENSE = "confusion_matrix"  # what was written before matrices were sparse: all cells, a list per true class
_SPARSE = "confusion"
Cells = Sequence[Sequence[int]]  # of each cell: the true class, the predicted class, and how many photos are in it


def dense_matrix(cells: Cells, classes: int) -> list[list[int]]:
    """Return all cells of a matrix of few classes: a row per true class, a column per predicted class."""
    matrix = [[0] * classes for _ in range(classes)]
    for true, predicted, photos in cells:
        matrix[true][predicted] = photos
    return matrix


def most_common_confusions(cells: Cells, classes: Sequence[str], count: int) -> list[tuple[str, str, int]]:
    """Return the pairs of true and predicted class with the most photos, and how many photos each has."""
    wrong = [(classes[true], classes[predicted], photos) for true, predicted, photos in cells if true != predicted]
    return heapq.nlargest(count, wrong, key=lambda pair: pair[2])


def with_sparse_confusion(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a split with a sparse matrix, whichever they were written with."""
    if _DENSE not in scores:
        return scores
    cells = [
        [true, predicted, photos]
        for true, row in enumerate(scores[_DENSE])
        for predicted, photos in enumerate(row)
        if photos
    ]
    return {name: value for name, value in scores.items() if name != _DENSE} | {_SPARSE: cells}
