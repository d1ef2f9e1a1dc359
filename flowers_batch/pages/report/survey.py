"""One pass over all rows of a run: counts of labels and confidences, samples, and duplicates."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.pages import charts
from flowers_batch.pages.photos import Photos
from flowers_batch.pages.report.album import Album
from flowers_batch.pages.report.limits import PageLimits
from flowers_batch.pages.report.samples import Duplicates, Samples, ranks_of

_TABLE_ROWS = 1000
_BARS = 25
_BINS = 20  # of the histogram
_BANDS = ((0.0, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.0))  # of confidence, each with a sample of photos
_UPPER_EDGES = np.array([high for _, high in _BANDS[:-1]])


class Survey:
    """What the rows of a run add up to.

    Args:
        limits: Limits of the page.

    Attributes:
        duplicates: Photos with the same bytes.
    """

    def __init__(self, limits: PageLimits):
        self._photos_by_label = Counter[str]()
        self._unknown = 0
        self._histogram: NDArray[np.int_] = np.zeros(_BINS, np.int_)
        self._by_label, self._by_band = Samples(limits.photos), Samples(limits.photos)
        self.duplicates = Duplicates(limits.digests, limits.photos)

    def add_predictions(self, rows: pa.RecordBatch) -> None:
        """Add rows that have a prediction."""
        labels, confidences = rows["prediction"].to_numpy(zero_copy_only=False), rows["probability"].to_numpy()
        ranks = ranks_of(rows)
        self._photos_by_label.update(labels.tolist())
        self._unknown += pc.sum(rows["is_unknown"]).as_py() or 0
        self._histogram += np.histogram(confidences, _BINS, (0, 1))[0]
        self._by_label.add(labels.astype(str), ranks, rows)
        self._by_band.add(np.searchsorted(_UPPER_EDGES, confidences, side="right"), ranks, rows)

    def show_labels(self, photos: Photos, album: Album, threshold: float | None) -> dict[str, Any]:
        """Return labels and confidences for the template.

        Args:
            photos: The photos of the run.
            album: Gets the thumbnails.
            threshold: The confidence below which labels are unknown; None if it is not known.
        """
        most_common = self._photos_by_label.most_common(_TABLE_ROWS)
        bars, histogram = most_common[:_BARS], self._histogram.tolist()
        return {
            "rows": most_common,
            "more": max(0, len(self._photos_by_label) - _TABLE_ROWS),
            "total": max(1, self._photos_by_label.total()),
            "unknown": self._unknown,
            "chart": charts.bars([name for name, _ in bars], [count for _, count in bars]) if bars else "",
            "bins": [(number / _BINS, (number + 1) / _BINS, count) for number, count in enumerate(histogram)],
            "confidence_chart": charts.histogram(histogram, threshold),
            "bands": [(band, album.add(photos, self._by_band.captions(number))) for number, band in enumerate(_BANDS)],
            "samples": [
                (name, album.add(photos, self._by_label.captions(name)))
                for name, _ in most_common[: album.limits.classes]
            ],
        }


def survey_run(run: Run, limits: PageLimits) -> Survey:
    """Return what the rows of a run add up to; they are read once, as a stream."""
    survey = Survey(limits)
    is_predictions, has_duplicates = run.job.kind == PREDICTIONS, run.summary["duplicates"] > 0
    if not is_predictions and not has_duplicates:
        return survey
    columns = ["prediction", "probability", "is_unknown"] if is_predictions else []
    for batch in run.batches(["path", "sha256", *columns]):
        readable = batch.filter(batch["sha256"].is_valid())
        if has_duplicates:
            survey.duplicates.add(ranks_of(readable), readable)
        if is_predictions:
            survey.add_predictions(readable.filter(readable["prediction"].is_valid()))
    return survey
