"""What the review page shows and does: views of photos, labels, and training."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

from flowers_batch.classifier.label_paths import match_labels
from flowers_batch.dataset.job import read_job
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError
from flowers_batch.pages.review.archive_codes import ArchiveCodes
from flowers_batch.pages.review.computed_views import ComputedViews
from flowers_batch.pages.review.details import describe_photo
from flowers_batch.pages.review.journal import Journal
from flowers_batch.pages.review.labels import ReviewLabels
from flowers_batch.pages.review.outside_links import OutsideLinks
from flowers_batch.pages.review.photo_groups import PhotoGroups
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.random_photos import RandomPhotos
from flowers_batch.pages.review.row_images import RowImages
from flowers_batch.pages.review.similar_photos import SimilarPhotos
from flowers_batch.pages.review.training import Training
from flowers_batch.pages.review.training_source import TrainingSource, find_training_source
from flowers_batch.pages.review.views import Views
from flowers_batch.storage.opening import PathOrUrl, open_folder

MAX_PHOTOS = 500  # described at once


class Review:
    """A review of codes or predictions by a person.

    Args:
        folder: A folder of codes or of predictions.
        labels: The CSV file that gets the labels.
        follow_links: Whether photos are shown that links in the photos' folder name, but that are outside it.
        min_precision: The precision that is wanted of certain labels; None: that of the predictions' classifier, or the
            default of `TrainConfig`.
        given: `images`, `root`, `model` and `codes`, where the user says where they are.

    Attributes:
        table: The photos.
        labels: The labels given during the review.
        views: The views of the photos.
        similar: Finds similar photos.
        images: Thumbnails and large pictures of the photos.
        training: All training from the page.
        outside_links: Counts the photos that are not shown without `follow_links`.

    Raises:
        InputError: It is a folder of neither, its rows do not fit in memory, `job.json` names photos in a place that
            may not be followed, or labels cannot be written to the file.
    """

    def __init__(
        self,
        folder: PathOrUrl,
        labels: PathOrUrl,
        *,
        follow_links: bool = False,
        min_precision: float | None = None,
        **given: PathOrUrl | None,
    ):
        self.table = PhotoTable(_open(folder, given))
        source = find_training_source(self.table)
        self.images = RowImages(self.table, follow_links=follow_links)
        self.outside_links = OutsideLinks(self.table, self.images.photos)
        self._training_labels = source.labels
        journal = Journal(labels)
        try:
            run = self.table.run
            journal.labels, journal.chosen = match_labels(journal.labels, run), match_labels(journal.chosen, run)
            self.labels = ReviewLabels(self.table, journal, _classes(self.table, source))
            turn = Lock()  # of whatever takes long and much memory
            self.training = Training(
                self.table, self.labels, source, turn, min_precision=min_precision, follow_links=follow_links
            )
        except BaseException:
            journal.close()
            raise
        codes = ArchiveCodes(self.table, source)
        self.similar = SimilarPhotos(self.table, codes, turn)
        computed, groups = ComputedViews(self.table, self.labels, source, turn), PhotoGroups(codes, turn)
        random = RandomPhotos(run, self.labels)
        self.views = Views(self.table, self.labels, computed, groups, self.similar, random)

    def start(self) -> None:
        """Start what the page will ask for first: the groups, and a classifier if there are enough labels."""
        if self.table.run.job.kind == CODES:
            self.views.prepare()
            self.training.start_if_due()

    def state(self) -> dict[str, Any]:
        """Return what the page shows besides photos."""
        return {
            "title": self.table.run.folder.url,
            "kind": self.table.run.job.kind,
            "photos": len(self.table),
            "classes": self.labels.classes,
            "class_counts": self.labels.counts(),
            "labelled": len(self.labels),
            "labels_file": str(self.labels.journal.file),
            "views": self.views.names,
            "folders": self.table.folders,
            "fit": self.training.fit and self.training.fit.state(),
            "commands": self.training.plan.commands(),
            "training_unavailable": self.training.plan.unavailable,
            "notices": self._notices(),
            "notices_are_complete": not self.outside_links.is_counting,
        }

    def _notices(self) -> list[str]:
        notices = []
        if (weights := self.table.run.job.weights).startswith("random:"):
            notices.append(
                f"The network has random weights ({weights}), never trained on photos: what is predicted means nothing."
            )
        return [*notices, self.outside_links.sentence] if self.outside_links.sentence else notices

    def photos(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Describe rows; unknown ones are left out.

        Args:
            rows: Their numbers, at most `MAX_PHOTOS`.

        Returns:
            The columns of the predictions, and `row`, `label` (given here) and `training_label`, each of which may be
            None, and `top`: the likeliest class and its probability, if they are known.

        Raises:
            InputError: There are more.
        """
        if len(rows) > MAX_PHOTOS:
            raise InputError(f"At most {MAX_PHOTOS} photos are described at once. Received: {len(rows)}.")
        rows = [row for row in rows if 0 <= row < len(self.table)]
        return [
            photo
            | {"row": row, "label": self.labels.get(row), "training_label": self._training_labels.label_of(row)}
            | {"top": [[photo["prediction"], photo["probability"]]] if photo["prediction"] is not None else []}
            for row, photo in zip(rows, self.table.take(rows), strict=True)
        ]

    def photo(self, row: int) -> dict[str, Any]:
        """Return what is known of one photo: what `describe_photo` does, and its `label`.

        Raises:
            InputError: There is no such photo.
        """
        return describe_photo(self.table, self.images, row) | {"label": self.labels.get(row)}

    def label(self, rows: Sequence[int], labels: Sequence[str | None], chosen: Sequence[str]) -> dict[str, Any]:
        """Label photos, as `ReviewLabels.set` does, and fit a classifier if that is due."""
        change = self.labels.set(rows, labels, chosen)
        self.training.start_if_due()
        return change

    def undo(self) -> dict[str, Any]:
        """Undo the last change, as `ReviewLabels.undo` does, and fit a classifier if that is due."""
        change = self.labels.undo()
        self.training.start_if_due()
        return change

    def close(self) -> None:
        """Release the file of labels, and end the processes that decode photos or label the archive."""
        self.labels.journal.close()
        self.images.close()
        self.training.close()


def _open(folder: PathOrUrl, given: dict[str, PathOrUrl | None]) -> Run:
    job = read_job(open_folder(folder))
    if job is None:
        raise InputError(
            f"{open_folder(folder).url} is a folder of neither codes nor predictions: make one with `flowers-batch "
            "encode`."
        )
    return open_run(folder, job.kind, given)


def _classes(table: PhotoTable, source: TrainingSource) -> list[str]:
    """Return the classes that the page offers before any label is given."""
    if source.made_predictions and source.model:
        return list(source.model.head.classes)
    return sorted(table.predictions.classes) if table.predictions else []
