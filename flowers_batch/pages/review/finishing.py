"""The end of a review: a model folder, the predictions of the whole archive, and a report on them."""

from __future__ import annotations

import shlex
from threading import Lock
from typing import Any

from flowers_batch.errors import InputError
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.prediction_process import PredictionProcess
from flowers_batch.pages.review.training_plan import TrainingPlan
from flowers_batch.pages.review.training_task import TrainingTask
from flowers_batch.progress import Progress, Reporter
from flowers_batch.storage.opening import open_folder

_MAX_PAGE_BYTES = 64 << 20  # of a report, which has less than a tenth of that


class Finishing(TrainingTask):
    """Trains a classifier on all labels, labels the archive with it, and writes a report, in a background thread.

    Args:
        table: The photos.
        plan: What the training is given.
        follow_links: Whether the report shows photos that links lead to, outside the photos' folder.
        turn: Held by computations that take long, one at a time.
    """

    def __init__(self, table: PhotoTable, plan: TrainingPlan, turn: Lock, *, follow_links: bool = False):
        super().__init__(plan, turn, "The review could not be finished")
        self._photos = table.run.given.get("images"), table.run.given.get("root")
        self._follow_links = follow_links
        self._prediction = PredictionProcess()

    def work(self, reporter: Reporter) -> dict[str, Any]:
        """Return the folders `model` and `predictions`, the `report`, and the command `tag` for these labels."""
        from flowers_batch.classifier.training import train
        from flowers_batch.pages.report.page import report

        plan = self._plan
        reporter.update(Progress("training the classifier"))
        train(plan.codes, plan.model, plan.config(), reporter=reporter)
        reporter.update(Progress("labelling the archive"))
        self._prediction.predict(plan.codes, plan.predictions, plan.model, reporter)
        reporter.update(Progress("writing the report"))
        images, root = self._photos
        page = report(plan.predictions, images=images, root=root, follow_links=self._follow_links, reporter=reporter)
        tag = shlex.join(["flowers-batch", "tag", plan.predictions, "--dry-run"])
        return {"model": plan.model, "predictions": plan.predictions, "report": page, "tag": tag}

    def page(self) -> bytes:
        """Return the report.

        Raises:
            InputError: There is none yet, or it is no report.
        """
        from flowers_batch.pages.report.page import PAGE

        if self.status.result is None:
            raise InputError("There is no report yet: finish the review first.")
        with open_folder(self._plan.predictions).open(PAGE) as file:
            page = file.read(_MAX_PAGE_BYTES + 1)
        if len(page) > _MAX_PAGE_BYTES:
            raise InputError(f"{self.status.result['report']} is too large for a report: open it from the disk.")
        return page

    def close(self) -> None:
        """Stop what runs in a process of its own."""
        self._prediction.close()
