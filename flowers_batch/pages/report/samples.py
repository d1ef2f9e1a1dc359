"""Random samples of photos, and sets of duplicates, collected in one pass over the rows of a run."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.pages.photos import Photos
from flowers_batch.pages.report.album import Album


class Samples:
    """Keeps for each key the few photos with the smallest digests: a random sample that is the same each time.

    Args:
        size: Photos kept for each key.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: dict[Any, list[tuple[int, str, float]]] = {}

    def add(self, keys: NDArray[Any], ranks: NDArray[np.uint64], rows: pa.RecordBatch) -> None:
        """Add rows of predictions.

        Args:
            keys: [rows].
            ranks: uint64 [rows]: as `ranks_of` returns them.
            rows: With the columns `path` and `probability`.
        """
        order = np.lexsort((ranks, keys))
        starts = np.flatnonzero(np.append(True, keys[order][1:] != keys[order][:-1])[: len(order)])
        place_in_key = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        few = order[place_in_key < self._size]
        columns = [rows[name].take(pa.array(few)).to_pylist() for name in ("path", "probability")]
        for key, rank, path, probability in zip(keys[few].tolist(), ranks[few].tolist(), *columns, strict=True):
            kept = self._kept.setdefault(key, [])
            kept.append((rank, path, probability))
            if len(kept) > self._size:
                kept.remove(max(kept))

    def captions(self, key: Any) -> dict[str, str]:
        """Return the captions of a key's sample, by path."""
        return {path: f"{probability:.0%} confident" for _, path, probability in sorted(self._kept.get(key, []))}


@dataclass
class DuplicateSet:
    """Photos with the same bytes.

    Attributes:
        photos: How many.
        paths: The first of them.
    """

    photos: int = 0
    paths: list[str] = field(default_factory=list)


class Duplicates:
    """Collects complete sets of photos with the same bytes, in bounded memory.

    Only digests below a bound are kept. It is halved whenever there are too many, so in a large archive a random part
    of the sets is found.

    Args:
        max_digests: Digests kept at the same time.
        paths: Paths kept for each set.
    """

    def __init__(self, max_digests: int, paths: int) -> None:
        self._max_digests, self._paths = max_digests, paths
        self._bound = (1 << 64) - 1
        self.sets: dict[bytes, DuplicateSet] = {}

    def add(self, ranks: NDArray[np.uint64], rows: pa.RecordBatch) -> None:
        """Add rows.

        Args:
            ranks: uint64 [rows]: as `ranks_of` returns them.
            rows: With the columns `path` and `sha256`, without nulls.
        """
        below = rows.filter(pa.array(ranks <= np.uint64(self._bound)))
        for digest, path in zip(below["sha256"].to_pylist(), below["path"].to_pylist(), strict=True):
            found = self.sets.setdefault(digest, DuplicateSet())
            found.photos += 1
            if len(found.paths) < self._paths:
                found.paths.append(path)
        while len(self.sets) > self._max_digests:
            self._bound //= 2
            below_bound = (digest for digest in self.sets if int.from_bytes(digest[:8], "big") <= self._bound)
            self.sets = {digest: self.sets[digest] for digest in below_bound}

    def show(self, photos: Photos, album: Album) -> list[dict[str, Any]]:
        """Return the largest sets for the template."""
        sets = (found for found in self.sets.values() if found.photos > 1)
        largest = heapq.nlargest(album.limits.duplicate_sets, sets, key=lambda found: found.photos)
        return [
            {"photos": found.photos, "pictures": album.add(photos, dict.fromkeys(found.paths, ""))} for found in largest
        ]


def ranks_of(rows: pa.RecordBatch) -> NDArray[np.uint64]:
    """Return the first eight bytes of each row's `sha256` as a big-endian number: uint64 [rows]."""
    digests = pa.concat_arrays([rows["sha256"]])  # a copy, whose buffer starts with its first value
    data = np.frombuffer(digests.buffers()[1] or b"", np.uint8)[32 * digests.offset :][: 32 * len(digests)]
    return data.reshape(-1, 32)[:, :8].copy().view(">u8").ravel().astype(np.uint64)
