"""Confusion matrices are sparse, and those that were written dense are read."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import confusion_matrix

from flowers_batch.classifier.calibration import TopLabels
from flowers_batch.classifier.confusion import dense_matrix, most_common_confusions, with_sparse_confusion
from flowers_batch.classifier.evaluation import evaluate

MATRIX = [[5, 2, 0], [1, 6, 0], [0, 3, 4]]
CELLS = [[0, 0, 5], [0, 1, 2], [1, 0, 1], [1, 1, 6], [2, 1, 3], [2, 2, 4]]


def test_cells_are_those_of_scikit_learns_matrix():
    random = np.random.default_rng(0)
    targets, labels = random.integers(0, 9, (2, 200))
    found = evaluate(TopLabels(targets, labels, np.ones(200)), list("abcdefghi"))["confusion"]
    expected = confusion_matrix(targets, labels, labels=range(9)).tolist()
    assert dense_matrix(found, 9) == expected
    assert all(photos > 0 for _, _, photos in found)


def test_dense_matrix_of_an_older_file_becomes_sparse():
    assert with_sparse_confusion({"photos": 21, "confusion_matrix": MATRIX}) == {"photos": 21, "confusion": CELLS}
    assert with_sparse_confusion({"photos": 21, "confusion": CELLS}) == {"photos": 21, "confusion": CELLS}
    assert dense_matrix(CELLS, 3) == MATRIX


def test_most_common_confusions_come_first():
    assert most_common_confusions(CELLS, ["a", "b", "c"], 3) == [("c", "b", 3), ("a", "b", 2), ("b", "a", 1)]
