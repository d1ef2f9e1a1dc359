"""The labelled photos of a codes folder, grouped and split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.labelled_codes import LabelledCodes, labelled_codes_in
from flowers_batch.classifier.labels import Labelled, read_labelled
from flowers_batch.classifier.near_duplicates import group
from flowers_batch.classifier.split import split, split_keys
from flowers_batch.config import TrainConfig
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter


@dataclass(frozen=True)
class LabelledSplit:
    """The labelled photos of a codes folder, grouped and divided.

    Attributes:
        labelled: All of them.
        classes: Names.
        sample: Their codes, targets and groups.
        values: [groups]: what decides on the side of each.
        sides: int [N]: an index into SIDES.
    """

    labelled: Labelled
    classes: tuple[str, ...]
    sample: LabelledCodes
    values: NDArray[np.float64]
    sides: NDArray[np.int_]

    def side(self, side: int) -> LabelledCodes:
        """The photos of a side."""
        return self.sample[self.sides == side]


def divide(run: Run, config: TrainConfig, reporter: Reporter = NULL_REPORTER) -> LabelledSplit:
    """Finds the labelled photos of a codes folder, and divides them so that no copy of a photo is on another side.

    Raises:
        InputError: The labels are not as they must be.
    """
    labelled = read_labelled(run, config.labels)
    reporter.update(Progress(f"finding near-duplicates among {len(labelled.paths)} labelled photos"))
    counts = Counter(labelled.labels.tolist())
    if len(counts) < 2:
        raise InputError(f"All labelled photos are {next(iter(counts))}: label photos of at least two classes.")
    names, targets = np.unique(labelled.labels, return_inverse=True)
    classes = tuple(names.tolist())
    groups = group(labelled.digests, labelled.hashes)
    values = split_keys(labelled.digests, groups)
    sides = split(values, groups, targets, list(classes))
    sample = labelled_codes_in(run, labelled.rows, targets, groups, config.max_memory_mb)
    return LabelledSplit(labelled, classes, sample, values, sides)


def with_codes_of(run: Run, photos: LabelledSplit, max_memory_mb: int | None) -> LabelledSplit:
    """The same labelled photos on the same sides, with the codes of another folder; those that it has none of are left
    out."""
    place = {path: number for number, path in enumerate(photos.labelled.paths)}
    rows, numbers, before = list[int](), list[int](), 0
    for batch in run.batches(["path", "status"]):
        for row, (path, status) in enumerate(zip(*(column.to_pylist() for column in batch), strict=True)):
            if status == OK and path in place:
                rows.append(before + row)
                numbers.append(place[path])
        before += len(batch)
    kept = np.array(numbers, np.int64)
    old = photos.labelled
    labelled = replace(
        old,
        paths=[old.paths[number] for number in numbers],
        labels=old.labels[kept],
        digests=old.digests[kept],
        hashes=old.hashes[kept],
        rows=np.array(rows, np.int64),
        without_code=old.without_code + len(old.paths) - len(kept),
    )
    sample = labelled_codes_in(
        run, labelled.rows, photos.sample.targets[kept], photos.sample.groups[kept], max_memory_mb
    )
    return LabelledSplit(labelled, photos.classes, sample, photos.values, photos.sides[kept])
