"""Filters of the review page, which combine: folder, class, certainty, labelled or not, and a text in the path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.errors import InputError
from flowers_batch.pages.review.photo_table import PhotoTable

_MAX_CHARACTERS = 1000  # of a text in a request
_LABELLED = {"": None, "yes": True, "no": False}


@dataclass(frozen=True)
class Filters:
    """Which photos are shown; the defaults show all.

    Attributes:
        label: Their class: the label given here or, without one, the prediction.
        folder: The folder that they are in, at any depth.
        low, high: The bounds of the probability of their prediction, both included.
        labelled: Whether they have a label given here; None: both.
        search: A text in their paths, in any case.
    """

    label: str = ""
    folder: str = ""
    low: float = 0.0
    high: float = 1.0
    labelled: bool | None = None
    search: str = ""

    @property
    def show_whole_archive(self) -> bool:
        """Whether no part of the archive is left out, but for labelled or unlabelled photos."""
        return self == Filters(labelled=self.labelled)

    def select(self, table: PhotoTable, labels: Mapping[int, str]) -> NDArray[np.bool_]:
        """Return which rows pass all filters: bool [rows].

        Args:
            table: The photos.
            labels: Those given here, by row.
        """
        passes = np.ones(len(table), bool)
        labelled = np.array([*labels], np.int64)
        if self.label:
            passes = self._has_label(table, labels, labelled)
        if self.low > 0 or self.high < 1:
            passes &= self._is_certain(table)
        if self.labelled is not None:
            is_labelled = np.zeros(len(table), bool)
            is_labelled[labelled] = True
            passes &= is_labelled == self.labelled
        if self.folder:
            passes &= _flags(pc.starts_with(table.paths, f"{self.folder}/"))
        if self.search:
            passes &= _flags(pc.match_substring(table.paths, self.search, ignore_case=True))
        return passes

    def _has_label(self, table: PhotoTable, labels: Mapping[int, str], labelled: NDArray[np.int_]) -> NDArray[np.bool_]:
        predictions = table.predictions
        passes = predictions.is_label(self.label) if predictions else np.zeros(len(table), bool)
        passes[labelled] = [label == self.label for label in labels.values()]
        return passes

    def _is_certain(self, table: PhotoTable) -> NDArray[np.bool_]:
        if (predictions := table.predictions) is None:
            return np.zeros(len(table), bool)
        is_certain = (predictions.probabilities >= self.low) & (predictions.probabilities <= self.high)
        return is_certain & (predictions.codes >= 0)


def filters_in(query: Mapping[str, str]) -> Filters:
    """Return the filters that a request's parameters name.

    Raises:
        InputError: A value is too long, or not what it must be.
    """
    for name in ("label", "folder", "search"):
        if len(query.get(name, "")) > _MAX_CHARACTERS:
            raise InputError(f"`{name}` has more than {_MAX_CHARACTERS} characters: shorten it.")
    labelled = query.get("labelled", "")
    if labelled not in _LABELLED:
        raise InputError(f"`labelled` must be yes, no or empty. Received: {labelled[:20]}.")
    return Filters(
        query.get("label", ""),
        query.get("folder", "").rstrip("/"),
        _share(query, "low", 0.0),
        _share(query, "high", 1.0),
        _LABELLED[labelled],
        query.get("search", "").strip(),
    )


def _share(query: Mapping[str, str], name: str, default: float) -> float:
    try:
        share = float(query.get(name) or default)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"`{name}` must be a number from 0 to 1.")
    return share


def _flags(found: pa.ChunkedArray) -> NDArray[np.bool_]:
    return found.to_numpy(zero_copy_only=False) if isinstance(found, pa.Array) else found.to_numpy()
