"""Random photos among those that a person labels: only these tell how good a classifier is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.chosen import RANDOM_EVERY
from flowers_batch.classifier.random_order import random_order
from flowers_batch.dataset.run_folder import Run
from flowers_batch.pages.review.computation import Computation
from flowers_batch.pages.review.labels import ReviewLabels

_ORDERED = 5000  # photos of the random order that are known, and may be labelled


class RandomPhotos:
    """The photos that are to be labelled next for being a random sample of the archive.

    A photo that comes up is shown although it has a label from a group or a suggestion: those without one are no fair
    sample, but photos that are hard to group or that nobody suggested.

    Args:
        run: The archive.
        labels: The labels given during the review.
    """

    def __init__(self, run: Run, labels: ReviewLabels):
        self._labels = labels
        self._order = Computation(lambda reporter: random_order(run, _ORDERED), Lock())  # waits for nothing

    def next(self, count: int, patience: float = 0.0) -> list[int] | None:
        """Return the rows of the next photos, at most `count`; None while their order is being computed.

        Args:
            count: How many.
            patience: As for `Computation.result`.
        """
        order = self._order.result("of this archive", patience)
        if order is None:
            return None
        known = self._labels.random_rows()
        left = (row for row in order.tolist() if row not in known)
        return [*islice(left, count)]

    def mix_into(self, rows: NDArray[np.int_]) -> tuple[NDArray[np.int_], list[int]]:
        """Return rows in which each fifth one is a random photo, if they are known, and which rows these are."""
        random = self.next(len(rows) // (RANDOM_EVERY - 1)) or []
        return mixed(rows, random), random


def mixed(rows: NDArray[np.int_], random: Sequence[int]) -> NDArray[np.int_]:
    """Return rows in order with a random one after each four others; a random one is in no other place."""
    others = rows[~np.isin(rows, random)]
    places = np.arange(1, len(random) + 1) * (RANDOM_EVERY - 1)
    return np.insert(others, np.minimum(places, len(others)), random)
