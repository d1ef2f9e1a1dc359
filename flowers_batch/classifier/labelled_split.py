"""The labelled photos of a codes folder, grouped and split."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.chosen import random_needed
from flowers_batch.classifier.labelled_codes import LabelledCodes, labelled_codes_in
from flowers_batch.classifier.labels import LabelledPhotos, read_labelled
from flowers_batch.classifier.left_out_classes import (
    MIN_TESTED_GROUPS,
    LeftOutClasses,
    classes_text,
    sentences_on_left_out_classes,
)
from flowers_batch.classifier.near_duplicates import group_near_duplicates
from flowers_batch.classifier.split import (
    LEFT_OUT,
    TEST,
    TRAIN,
    VALIDATION,
    assign_splits,
    groups_by_class,
    split_keys,
)
from flowers_batch.config import TrainConfig
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter


@dataclass(frozen=True)
class LabelledSplit:
    """The labelled photos of a codes folder, grouped and split.

    Attributes:
        photos: Those of the classes that are trained.
        classes: The names of these classes.
        codes: The photos' codes, targets and groups.
        keys: float64 [groups]: decide on each group's split, see `split_keys`.
        splits: int [N]: each photo's split, an index into SPLITS.
        all_photos: All labelled photos, also of classes that are left out.
        left_out: Those classes.
    """

    photos: LabelledPhotos
    classes: tuple[str, ...]
    codes: LabelledCodes
    keys: NDArray[np.float64]
    splits: NDArray[np.int_]
    all_photos: LabelledPhotos
    left_out: LeftOutClasses

    def codes_of(self, split: int) -> LabelledCodes:
        """Return the codes of a split's photos."""
        return self.codes[self.splits == split]

    def random_of(self, split: int) -> NDArray[np.bool_]:
        """Return which of a split's photos were chosen at random: bool [photos of the split]."""
        return self.photos.are_random[self.splits == split]

    @property
    def random_needed(self) -> int:
        """How many more photos must be labelled at random before a figure can be told."""
        return random_needed(self.photos.chosen.tolist())

    def without_validation(self) -> LabelledSplit:
        """Return the same photos, of which those that would validate are trained on."""
        return replace(self, splits=np.where(self.splits == VALIDATION, TRAIN, self.splits))


def split_labelled(run: Run, config: TrainConfig, reporter: Reporter = NULL_REPORTER) -> LabelledSplit:
    """Return the labelled photos of a codes folder, split so that near-duplicates stay together.

    Classes with too few photos are left out, and named by the reporter.

    Raises:
        InputError: The labels are not valid, or too few.
    """
    photos = read_labelled(run, config.labels, reporter, classes=config.classes)
    reporter.update(Progress(f"finding near-duplicates among {len(photos.paths)} labelled photos"))
    counts = Counter(photos.labels.tolist())
    if len(counts) < 2:
        raise InputError(f"All labelled photos are {next(iter(counts))}: label photos of at least two classes.")
    names, targets = np.unique(photos.labels, return_inverse=True)
    # Of all photos, so that a class which later has enough of them changes no other photo's split.
    groups = group_near_duplicates(photos.digests, photos.hashes)
    keys = split_keys(photos.digests, groups)
    splits = assign_splits(keys, groups, targets, config.min_photos_per_class, photos.are_random)
    kept = splits != LEFT_OUT
    left_out = _describe_left_out(names, groups, targets, splits, config.min_photos_per_class)
    classes, kept_targets = np.unique(photos.labels[kept], return_inverse=True)
    if len(classes) < 2 or (photos.are_random.all() and not (splits == TEST).any()):
        raise _too_few_photos(left_out)
    for sentence in sentences_on_left_out_classes(asdict(left_out)):
        reporter.message(sentence)
    kept_photos = photos[kept]
    kept_groups, numbered = np.unique(groups[kept], return_inverse=True)
    codes = labelled_codes_in(run, kept_photos.rows, kept_targets, numbered, config.max_memory_mb)
    return LabelledSplit(kept_photos, tuple(classes.tolist()), codes, keys[kept_groups], splits[kept], photos, left_out)


def _describe_left_out(
    names: NDArray[np.str_],
    groups: NDArray[np.int_],
    targets: NDArray[np.int_],
    splits: NDArray[np.int_],
    min_photos: int,
) -> LeftOutClasses:
    distinct = [len(own) for own in groups_by_class(groups, targets)]

    def counted(photos: NDArray[np.bool_]) -> dict[str, int]:
        return {names[target].item(): distinct[target] for target in np.unique(targets[photos]).tolist()}

    is_missing = ~np.isin(targets, targets[splits != LEFT_OUT])
    missing, tested = counted(is_missing), counted(splits == TEST)
    return LeftOutClasses(
        min_photos_per_class=min_photos,
        photos=int(is_missing.sum()),
        rare={name: count for name, count in missing.items() if count < min_photos},
        copies={name: count for name, count in missing.items() if count >= min_photos},
        untested={
            name: count
            for name, count in counted(splits == TRAIN).items()
            if name not in tested and count < MIN_TESTED_GROUPS
        },
    )


def _too_few_photos(left_out: LeftOutClasses) -> InputError:
    few = left_out.rare | left_out.copies | left_out.untested
    return InputError(
        f"Too few photos are labelled: at least two classes, and in one of them {MIN_TESTED_GROUPS} photos that are no "
        f"copies of each other or of other classes' photos, are needed. Too few are in: {classes_text(few)}. Label "
        "more photos."
    )


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
    counts = replace(old.counts, without_code=old.counts.without_code + len(old.paths) - len(kept))
    photos = replace(old[kept], rows=np.array(rows, np.int64), counts=counts)
    codes = labelled_codes_in(
        run, photos.rows, labelled.codes.targets[kept], labelled.codes.groups[kept], max_memory_mb
    )
    return replace(labelled, photos=photos, codes=codes, splits=labelled.splits[kept])
