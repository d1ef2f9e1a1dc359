"""One pass over all rows of a run: counts, fair samples, duplicates."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.pages import charts
from flowers_batch.pages.report.album import _CLASSES, _SHOWN, _Album
from flowers_batch.pages.thumbnails import Photos

_TABLE_ROWS = 1000
_BARS = 25
_PARTS = 20  # of the histogram
_BANDS = ((0.0, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.0))  # of certainty, of which photos are shown
_COPIES = 6  # sets that are shown
_DIGESTS = 50_000  # held at once while copies are looked for


class _Samples:
    """For each key the few photos whose digests are the smallest: a fair sample, and the same each time."""

    def __init__(self) -> None:
        self._kept: dict[Any, list[tuple[int, str, float]]] = {}

    def add(self, keys: NDArray[Any], ranks: NDArray[np.uint64], rows: pa.RecordBatch) -> None:
        """Takes rows of predictions, a key each."""
        order = np.lexsort((ranks, keys))
        starts = np.flatnonzero(np.append(True, keys[order][1:] != keys[order][:-1])[: len(order)])
        place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        few = order[place < _SHOWN]
        columns = [rows[name].take(pa.array(few)).to_pylist() for name in ("path", "probability")]
        for key, rank, path, sure in zip(keys[few].tolist(), ranks[few].tolist(), *columns, strict=True):
            kept = self._kept.setdefault(key, [])
            kept.append((rank, path, sure))
            if len(kept) > _SHOWN:
                kept.remove(max(kept))

    def captions(self, key: Any) -> dict[str, str]:
        """The photos of a key."""
        return {path: f"{sure:.0%} sure" for _, path, sure in sorted(self._kept.get(key, []))}


class _Copies:
    """Photos of equal bytes: all of those whose digests are below a bound that keeps few enough in memory."""

    def __init__(self) -> None:
        self._bound = (1 << 64) - 1
        self._sets: dict[bytes, _Set] = {}

    def add(self, ranks: NDArray[np.uint64], rows: pa.RecordBatch) -> None:
        """Takes rows that have a digest."""
        below = rows.filter(pa.array(ranks <= np.uint64(self._bound)))
        for digest, path in zip(below["sha256"].to_pylist(), below["path"].to_pylist(), strict=True):
            found = self._sets.setdefault(digest, _Set())
            found.photos += 1
            if len(found.paths) < _SHOWN:
                found.paths.append(path)
        while len(self._sets) > _DIGESTS:
            self._bound //= 2
            below_bound = (digest for digest in self._sets if int.from_bytes(digest[:8], "big") <= self._bound)
            self._sets = {digest: self._sets[digest] for digest in below_bound}

    def shown(self, photos: Photos, album: _Album) -> list[dict[str, Any]]:
        """The largest sets."""
        sets = heapq.nlargest(
            _COPIES, (found for found in self._sets.values() if found.photos > 1), key=lambda found: found.photos
        )
        return [
            {"photos": found.photos, "pictures": album.pictures(photos, dict.fromkeys(found.paths, ""))}
            for found in sets
        ]


@dataclass
class _Set:
    """Photos of equal bytes: how many, and the first of them."""

    photos: int = 0
    paths: list[str] = field(default_factory=list)


@dataclass
class _Survey:
    """What is learnt from all rows of a run."""

    counts: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    parts: NDArray[np.int_] = field(default_factory=lambda: np.zeros(_PARTS, np.int_))
    by_label: _Samples = field(default_factory=_Samples)
    by_band: _Samples = field(default_factory=_Samples)
    copies: _Copies = field(default_factory=_Copies)

    def shown(self, photos: Photos, album: _Album, threshold: float | None) -> dict[str, Any]:
        """Labels and certainty, for the template."""
        total = max(1, self.counts.total())
        names = [name for name, _ in self.counts.most_common(_CLASSES)]
        few = self.counts.most_common(_BARS)
        return {
            "rows": self.counts.most_common(_TABLE_ROWS),
            "more": max(0, len(self.counts) - _TABLE_ROWS),
            "total": total,
            "unknown": self.unknown,
            "chart": charts.bars([name for name, _ in few], [count for _, count in few]) if few else "",
            "parts": [(number / _PARTS, (number + 1) / _PARTS, count) for number, count in enumerate(self.parts)],
            "parts_chart": charts.histogram(self.parts.tolist(), threshold),
            "bands": [
                (band, album.pictures(photos, self.by_band.captions(number))) for number, band in enumerate(_BANDS)
            ],
            "samples": [(name, album.pictures(photos, self.by_label.captions(name))) for name in names],
        }


def _survey(run: Run) -> _Survey:
    """Streams all rows of a run once."""
    survey = _Survey()
    labels = ["prediction", "probability", "is_unknown"] if run.job.kind == PREDICTIONS else []
    if not labels and not run.summary["duplicates"]:
        return survey
    edges = np.array([high for _, high in _BANDS[:-1]])
    for batch in run.batches(["path", "sha256", *labels]):
        read = batch.filter(batch["sha256"].is_valid())
        if run.summary["duplicates"]:
            survey.copies.add(_ranks(read), read)
        if labels:
            rows = read.filter(read["prediction"].is_valid())
            names, sure = rows["prediction"].to_numpy(zero_copy_only=False), rows["probability"].to_numpy()
            survey.counts.update(names.tolist())
            survey.unknown += pc.sum(rows["is_unknown"]).as_py() or 0
            survey.parts += np.histogram(sure, _PARTS, (0, 1))[0]
            survey.by_label.add(names.astype(str), _ranks(rows), rows)
            survey.by_band.add(np.searchsorted(edges, sure, side="right"), _ranks(rows), rows)
    return survey


def _ranks(rows: pa.RecordBatch) -> NDArray[np.uint64]:
    """The first eight bytes of each digest as a number: uint64 [rows]."""
    digests = pa.concat_arrays([rows["sha256"]])  # which begins at its buffer's beginning
    data = np.frombuffer(digests.buffers()[1] or b"", np.uint8)[32 * digests.offset :][: 32 * len(digests)]
    return data.reshape(-1, 32)[:, :8].copy().view(">u8").ravel().astype(np.uint64)
