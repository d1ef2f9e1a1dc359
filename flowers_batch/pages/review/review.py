"""What the review page shows and does: views of photos, labels, and retraining."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

from flowers_batch.classifier.label_paths import match_labels
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.errors import InputError
from flowers_batch.pages.review.journal import Journal
from flowers_batch.pages.review.labels import ReviewLabels
from flowers_batch.pages.review.outside_links import OutsideLinks
from flowers_batch.pages.review.predictions import PredictionTable
from flowers_batch.pages.review.retraining import Retraining
from flowers_batch.pages.review.row_thumbnails import RowThumbnails
from flowers_batch.pages.review.training_source import find_training_source
from flowers_batch.pages.review.views import VIEWS, Views
from flowers_batch.storage.opening import PathOrUrl

MAX_PHOTOS = 500  # described at once


class Review:
    """A review of predictions by a person.

    Args:
        predictions: A folder of predictions.
        labels: The CSV file that gets the labels.
        follow_links: Whether photos are shown that links in the photos' folder name, but that are outside it.
        given: `images`, `root`, `model` and `codes`, where the user says where they are.

    Attributes:
        table: The predictions.
        source: What a retraining starts from.
        labels: The labels given during the review.
        views: The views of the predictions.
        retraining: The training from the page.
        thumbnails: Thumbnails of the rows.
        outside_links: Counts the photos that are not shown without `follow_links`.

    Raises:
        InputError: It is not a folder of predictions, its rows do not fit in memory, `job.json` names photos in a
            place that may not be followed, or labels cannot be written to the file.
    """

    def __init__(
        self, predictions: PathOrUrl, labels: PathOrUrl, *, follow_links: bool = False, **given: PathOrUrl | None
    ):
        self.table = PredictionTable(open_run(predictions, PREDICTIONS, given))
        self.source = find_training_source(self.table)
        self.thumbnails = RowThumbnails(self.table, follow_links=follow_links)
        self.outside_links = OutsideLinks(self.table, self.thumbnails.photos)
        model = self.source.model if self.source.made_predictions else None
        classes = model.head.classes if model else sorted(self.table.classes)
        journal = Journal(labels)
        journal.labels = match_labels(journal.labels, self.table.run)
        self.labels = ReviewLabels(self.table, journal, classes)
        turn = Lock()  # of whatever takes long and much memory
        self.views = Views(self.table, self.labels, self.source, turn)
        self.retraining = Retraining(self.table, self.source, journal.file, turn)

    def state(self) -> dict[str, Any]:
        """Return what the page shows besides photos."""
        run = self.table.run
        return {
            "title": run.folder.url,
            "photos": len(self.table),
            "classes": self.labels.classes,
            "labelled": len(self.labels),
            "labels_file": str(self.labels.journal.file),
            "views": VIEWS,
            "commands": self.retraining.commands(),
            "training_unavailable": self.source.unavailable,
            "notices": self._notices(),
            "notices_are_complete": not self.outside_links.is_counting,
        }

    def _notices(self) -> list[str]:
        notices = []
        if (weights := self.table.run.job.weights).startswith("random:"):
            notices.append(
                f"The network has random weights ({weights}), never trained on photos: its predictions mean nothing."
            )
        return [*notices, self.outside_links.sentence] if self.outside_links.sentence else notices

    def photos(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Describe rows; unknown ones are left out.

        Args:
            rows: Their numbers, at most `MAX_PHOTOS`.

        Returns:
            The columns of the predictions, and `row`, `label` (given here) and `training_label`, each of which may be
            None.

        Raises:
            InputError: There are more.
        """
        if len(rows) > MAX_PHOTOS:
            raise InputError(f"At most {MAX_PHOTOS} photos are described at once. Received: {len(rows)}.")
        rows = [row for row in rows if 0 <= row < len(self.table)]
        return [
            photo | {"row": row, "label": self.labels.get(row), "training_label": self.source.labels.label_of(row)}
            for row, photo in zip(rows, self.table.take(rows), strict=True)
        ]

    def close(self) -> None:
        """Release the file of labels, and end the processes that decode photos."""
        self.labels.journal.close()
        self.thumbnails.close()
