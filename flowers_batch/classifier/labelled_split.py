"""The labelled photos of a codes folder, grouped and split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.labelled_codes import LabelledCodes, labelled_codes_in
from flowers_batch.classifier.labels import LabelledPhotos, read_labelled
from flowers_batch.classifier.near_duplicates import group_near_duplicates
from flowers_batch.classifier.split import assign_splits, split_keys
from flowers_batch.config import TrainConfig
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter


@dataclass(frozen=True)
class LabelledSplit:
    """The labelled photos of a codes folder, grouped and split.

    Attributes:
        photos: All of them.
        classes: Names.
        codes: Their codes, targets and groups.
        keys: float64 [groups]: decide on each group's split, see `split_keys`.
        splits: int [N]: each photo's split, an index into SPLITS.
    """

    photos: LabelledPhotos
    classes: tuple[str, ...]
    codes: LabelledCodes
    keys: NDArray[np.float64]
    splits: NDArray[np.int_]

    def codes_of(self, split: int) -> LabelledCodes:
        """Return the codes of a split's photos."""
        return self.codes[self.splits == split]


def split_labelled(run: Run, config: TrainConfig, reporter: Reporter = NULL_REPORTER) -> LabelledSplit:
    """Return the labelled photos of a codes folder, split so that near-duplicates stay together.

    Raises:
        InputError: The labels are not valid, or too few.
    """
    photos = read_labelled(run, config.labels)
    reporter.update(Progress(f"finding near-duplicates among {len(photos.paths)} labelled photos"))
    counts = Counter(photos.labels.tolist())
    if len(counts) < 2:
        raise InputError(f"All labelled photos are {next(iter(counts))}: label photos of at least two classes.")
    names, targets = np.unique(photos.labels, return_inverse=True)
    classes = tuple(names.tolist())
    groups = group_near_duplicates(photos.digests, photos.hashes)
    keys = split_keys(photos.digests, groups)
    splits = assign_splits(keys, groups, targets, list(classes))
    codes = labelled_codes_in(run, photos.rows, targets, groups, config.max_memory_mb)
    return LabelledSplit(photos, classes, codes, keys, splits)


def with_codes_of(run: Run, labelled: LabelledSplit, max_memory_mb: int | None) -> LabelledSplit:
    """Return the same labelled photos in the same splits with the codes of another folder.

    Args:
        run: The other codes folder; photos without a code in it are left out.
        labelled: The labelled photos.
        max_memory_mb: See `labelled_codes_in`.
    """
    old = labelled.photos
    number_of = {path: number for number, path in enumerate(old.paths)}
    rows, numbers, before = list[int](), list[int](), 0
    for batch in run.batches(["path", "status"]):
        for row, (path, status) in enumerate(zip(*(column.to_pylist() for column in batch), strict=True)):
            if status == OK and path in number_of:
                rows.append(before + row)
                numbers.append(number_of[path])
        before += len(batch)
    kept = np.array(numbers, np.int64)
    photos = LabelledPhotos(
        paths=[old.paths[number] for number in numbers],
        labels=old.labels[kept],
        digests=old.digests[kept],
        hashes=old.hashes[kept],
        rows=np.array(rows, np.int64),
        counts=replace(old.counts, without_code=old.counts.without_code + len(old.paths) - len(kept)),
    )
    codes = labelled_codes_in(
        run, photos.rows, labelled.codes.targets[kept], labelled.codes.groups[kept], max_memory_mb
    )
    return LabelledSplit(photos, labelled.classes, codes, labelled.keys, labelled.splits[kept])
