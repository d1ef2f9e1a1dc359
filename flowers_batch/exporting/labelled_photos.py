"""The photos of finished predictions with the labels that they are given, a pair of files with one label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter
from flowers_batch.sources.pairs import by_photo

_COLUMNS = ("path", "status", "prediction", "probability", "is_unknown")


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo and its label.

    Attributes:
        paths: The keys of its files: one, or several of a pair; some of these may have failed.
        label: The label of its most probable prediction that is certain; None if there is none.
        probability: Of the label; None without it.
        has_failed: Whether all of its files have failed.
    """

    paths: tuple[str, ...]
    label: str | None
    probability: float | None
    has_failed: bool


def labelled_photos(
    run: Run, min_probability: float | None = None, reporter: Reporter = NULL_REPORTER
) -> Iterator[LabelledPhoto]:
    """Yield all photos of predictions, folder by folder, those with one name after each other.

    Args:
        run: The predictions.
        min_probability: Predictions that are as probable are certain; None: those that `predict` marked as known.
        reporter: Receives progress.

    Raises:
        InputError: The predictions are damaged.
        RunError: The disk or the store fails, or the scratch disk is full.
    """
    for rows in by_photo(_rows(run, min_probability, reporter)):
        certain = [row for row in rows if row[2] is not None]
        best = max(certain, key=lambda row: row[3] or 0.0, default=(None, None, None, None))
        yield LabelledPhoto(tuple(row[0] for row in rows), best[2], best[3], not any(row[1] for row in rows))


def _rows(
    run: Run, min_probability: float | None, reporter: Reporter
) -> Iterator[tuple[str, bool, str | None, float | None]]:
    """Yield each row's path, whether it is ok, and its label and probability where they are certain."""
    read = 0
    for batch in run.batches(_COLUMNS):
        if min_probability is None:
            is_certain = pc.invert(batch["is_unknown"])
        else:
            is_certain = pc.greater_equal(batch["probability"], pa.scalar(min_probability, pa.float32()))
        columns = (
            batch["path"],
            pc.equal(batch["status"], OK),
            *(pc.if_else(is_certain, batch[name], None) for name in ("prediction", "probability")),
        )
        yield from zip(*(column.to_pylist() for column in columns), strict=True)
        read += len(batch)
        reporter.update(Progress(f"reading labels: {read} of {run.manifest.images}"))
