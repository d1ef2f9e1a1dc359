"""The labels given during a review: in memory by row, and on disk in the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress
from threading import Lock
from typing import Any

from flowers_batch.classifier.chosen import are_random, combined
from flowers_batch.classifier.labels_file import MAX_LABEL_CHARACTERS, class_name
from flowers_batch.dataset.schema import OK
from flowers_batch.errors import InputError
from flowers_batch.pages.review.journal import Journal
from flowers_batch.pages.review.photo_table import PhotoTable


class ReviewLabels:
    """The labels of rows, kept equal to a journal; safe to use from several threads.

    Args:
        table: The photos.
        journal: The file of labels.
        classes: The classes that the page offers before any label is given.

    Attributes:
        journal: That file.
        classes: All classes, in the order in which the page shows them.
        changes: How many changes were made, undoing included.
        changed: How many photos they changed, a photo each time.
    """

    def __init__(self, table: PhotoTable, journal: Journal, classes: Iterable[str]):
        self.journal = journal
        self.classes = list(dict.fromkeys([*classes, *journal.labels.values()]))
        self.changes = self.changed = 0
        self._table = table
        self._lock = Lock()  # of the journal and everything below
        self._row_of_path = table.find(journal.labels)  # of photos that have, or had, a label here
        self._by_row = {row: journal.labels[path] for path, row in self._row_of_path.items()}

    def __len__(self) -> int:
        """Return how many photos of the table have a label; the file may have labels of other archives, too."""
        return len(self._by_row)

    def get(self, row: int) -> str | None:
        """Return the label of a row; None if it has none."""
        return self._by_row.get(row)

    def by_row(self) -> dict[int, str]:
        """Return a copy of all labels by row."""
        with self._lock:
            return self._by_row.copy()

    def counts(self) -> dict[str, int]:
        """Return how many photos have each label."""
        with self._lock:
            return Counter(self._by_row.values())

    def by_path(self) -> tuple[dict[str, str], dict[str, str], int]:
        """Return copies of all labels and of how their photos were chosen, by path, and `changed` when these held."""
        with self._lock:
            return self.journal.labels.copy(), self.journal.chosen.copy(), self.changed

    def random_rows(self) -> set[int]:
        """Return the rows whose photos were labelled after they were chosen at random, or in an unknown way."""
        with self._lock:
            rows = {path: row for path, row in self._row_of_path.items() if row in self._by_row}
            is_random = are_random([self.journal.chosen.get(path, "") for path in rows])
            return {*compress(rows.values(), is_random.tolist())}

    def set(self, rows: Sequence[int], labels: Sequence[str | None], chosen: Sequence[str]) -> dict[str, Any]:
        """Label photos, all in one change, which is on disk when this returns.

        Args:
            rows: The photos. Failed ones are left out and counted as `skipped`.
            labels: Of each photo; None accepts its prediction.
            chosen: How each photo was chosen: one of `CHOSEN`. One that was chosen at random before remains so: its
                earlier label counted, too.

        Returns:
            The changed `labels` (`row` and `label` each), `labelled` photos in total, the `classes` that these labels
            name, the `class_counts` of all, and `skipped`.

        Raises:
            InputError: There is no such photo, it has no prediction to accept, or a label is empty, too long or not
                valid text.
            RunError: The file cannot be written.
        """
        photos = self._table.take(rows)
        given = {
            row: (photo["path"], _accepted(photo) if label is None else _validated(label), way)
            for row, photo, label, way in zip(rows, photos, labels, chosen, strict=True)
            if photo["status"] == OK
        }
        with self._lock:
            if given:
                ways = {path: self._way_of(path, way) for path, _, way in given.values()}
                self.journal.write({path: label for path, label, _ in given.values()}, ways)
            self.changes += 1
            self.changed += len(given)
            self._by_row |= {row: label for row, (_, label, _) in given.items()}
            self._row_of_path |= {path: row for row, (path, _, _) in given.items()}
            self.classes = list(dict.fromkeys([*self.classes, *(label for _, label, _ in given.values())]))
            return self._describe_change(given) | {"skipped": len(rows) - len(given)}

    def _way_of(self, path: str, way: str) -> str:
        """Return how a photo was chosen, by what is known already and what is said now."""
        before = self.journal.chosen.get(path, "") if path in self.journal.labels else None
        return combined(before, way)

    def undo(self) -> dict[str, Any]:
        """Undo the last change of this review.

        Returns:
            The changed `labels`, `labelled`, `classes` and `class_counts`, as `set` returns them.

        Raises:
            RunError: The file cannot be written.
        """
        with self._lock:
            before = self.journal.undo()
            self.changes += 1
            self.changed += len(before)
            rows = {self._row_of_path[path]: label for path, label in before.items() if path in self._row_of_path}
            for row, label in rows.items():
                if label is None:
                    del self._by_row[row]
                else:
                    self._by_row[row] = label
            return self._describe_change(rows)

    def _describe_change(self, rows: Iterable[int]) -> dict[str, Any]:
        labels = [{"row": row, "label": self._by_row.get(row)} for row in rows]
        classes = list(dict.fromkeys(each["label"] for each in labels if each["label"] is not None))
        counts = Counter(self._by_row.values())
        return {"labels": labels, "labelled": len(self), "classes": classes, "class_counts": counts}


def _accepted(photo: dict[str, Any]) -> str:
    if photo["prediction"] is None:
        raise InputError("There is no label to accept yet: give the photo a class.")
    return photo["prediction"]


def _validated(label: str) -> str:
    label = class_name(label)
    try:
        label.encode()
    except UnicodeEncodeError:
        label = ""
    if not 0 < len(label) <= MAX_LABEL_CHARACTERS or "\0" in label:  # no labels file with NUL can be read again
        raise InputError(f"A label must be text of 1 to {MAX_LABEL_CHARACTERS} characters, none of them NUL.")
    return label
