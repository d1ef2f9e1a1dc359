"""What the review page shows and does: views of photos, labels, and retraining."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.pages.review.journal import Journal
from flowers_batch.pages.review.labels import ReviewLabels
from flowers_batch.pages.review.predictions import PredictionTable
from flowers_batch.pages.review.retraining import Retraining
from flowers_batch.pages.review.row_thumbnails import RowThumbnails
from flowers_batch.pages.review.training_source import find_training_source
from flowers_batch.pages.review.views import VIEWS, Views
from flowers_batch.storage.folder import PathOrUrl

_MAX_PHOTOS = 500  # described at once


class Review:
    """A review of predictions by a person.

    Args:
        predictions: A folder of predictions.
        labels: The CSV file that gets the labels.

    Attributes:
        table: The predictions.
        source: What a retraining starts from.
        labels: The labels given during the review.
        views: The views of the predictions.
        retraining: The training from the page.
        thumbnails: Thumbnails of the rows.

    Raises:
        InputError: It is not a folder of predictions, or labels cannot be written to the file.
    """

    def __init__(self, predictions: PathOrUrl, labels: PathOrUrl):
        self.table = PredictionTable(open_run(predictions, PREDICTIONS))
        self.source = find_training_source(self.table.run)
        self.thumbnails = RowThumbnails(self.table)
        model = self.source.model if self.source.made_predictions else None
        classes = model.head.classes if model else self.table.predicted_classes()
        journal = Journal(labels)
        self.labels = ReviewLabels(self.table, journal, classes)
        self.views = Views(self.table, self.labels, self.source)
        self.retraining = Retraining(self.table, self.source, journal.file)

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
            "random_weights": run.job.weights if run.job.weights.startswith("random:") else "",
        }

    def photos(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Describe rows, at most some hundreds; unknown ones are left out.

        Returns:
            The columns of the predictions, and `row`, `label` (given here) and `training_label`, each of which may be
            None.
        """
        rows = [row for row in rows if 0 <= row < len(self.table)][:_MAX_PHOTOS]
        return [
            photo | {"row": row, "label": self.labels.get(row), "training_label": self.source.label_of(photo["path"])}
            for row, photo in zip(rows, self.table.take(rows), strict=True)
        ]

    def close(self) -> None:
        """Release the file of labels and the files of photos."""
        self.labels.journal.close()
        self.thumbnails.photos.close()
