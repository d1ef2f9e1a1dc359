"""The split into training, validation and test photos; near-duplicates never straddle it.

A group's split is decided by the content of its photos and by nothing else, so that a photo stays in its split as the
archive grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.left_out_classes import MIN_TESTED_GROUPS

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
_MIN_RANDOM_GROUPS = 10  # of a class, if not all of its groups have randomly chosen photos
LEFT_OUT = -1  # in place of the split of a photo whose class is not trained
# Of each split, the range of its groups' keys in [0, 1): its share of all groups.
_KEY_RANGES = {TEST: (0.0, 0.1), VALIDATION: (0.1, 0.2), TRAIN: (0.2, 1.0)}


def assign_splits(
    keys: NDArray[np.floating],
    groups: NDArray[np.int_],
    targets: NDArray[np.int_],
    min_groups: int = 1,
    are_random: NDArray[np.bool_] | None = None,
) -> NDArray[np.int_]:
    """Return the split of each photo: 80% of the groups train, 10% validate, 10% test.

    Groups without a randomly chosen photo train in any case. If a class has no photo in a split, its group with the
    nearest key moves there. Of classes with fewer than three groups, or with groups without a randomly chosen photo and
    fewer than ten others, all groups train that are of no other class. Classes with fewer than `min_groups` groups are
    left out, and so are classes that share their groups with others in such a way that a split stays empty.

    Args:
        keys: [groups], in [0, 1): see `split_keys`.
        groups: int [N]: each photo's group.
        targets: int [N]: each photo's class.
        min_groups: How many groups a class needs, 1 or more.
        are_random: bool [N]: photos that were chosen at random; None: all. The others never validate or test: in
            groups that do, they are left out.

    Returns:
        int [N]: an index into SPLITS; LEFT_OUT for the photos of classes that are left out.
    """
    are_random = np.ones(len(groups), bool) if are_random is None else are_random
    can_test = np.bincount(groups, are_random, len(keys)) > 0
    groups_of_class = groups_by_class(groups, targets)
    trained = {target: own for target, own in enumerate(groups_of_class) if len(own) >= max(1, min_groups)}
    kept = {target: own for target, own in trained.items() if _enough_to_test(can_test[own])}
    rare = [target for target in trained if target not in kept]
    while True:
        split = _split_groups(keys, can_test, list(kept.values()))
        straddling = [target for target, own in kept.items() if len(np.unique(split[own])) < len(SPLITS)]
        if not straddling:
            tested = np.unique(groups[np.isin(targets, list(kept))])
            split[np.setdiff1d(np.arange(len(keys)), tested)] = TRAIN
            is_used = np.isin(targets, [*kept, *rare]) & (are_random | (split[groups] == TRAIN))
            return np.where(is_used, split[groups], LEFT_OUT)
        del kept[_most_copied(kept, straddling)]  # one at a time: without it, the others may be in every split


def _enough_to_test(can_test: NDArray[np.bool_]) -> bool:
    """Return whether a class is tested, by which of its groups can: of few randomly chosen photos none is spared."""
    return len(can_test) >= MIN_TESTED_GROUPS and bool(can_test.all() or can_test.sum() >= _MIN_RANDOM_GROUPS)


def _split_groups(
    keys: NDArray[np.floating], can_test: NDArray[np.bool_], groups_of_class: Sequence[NDArray[np.int_]]
) -> NDArray[np.int_]:
    """Return the split of each group, int [groups], by its key, and by the classes that lack a split.

    Args:
        keys: [groups].
        can_test: bool [groups]: those that may validate or test.
        groups_of_class: The groups of each class.
    """
    split = np.select([(low <= keys) & (keys < high) for low, high in _KEY_RANGES.values()], list(_KEY_RANGES), TRAIN)
    split[~can_test] = TRAIN
    for own in groups_of_class:
        for wanted, (low, high) in _KEY_RANGES.items():
            if not (split[own] == wanted).any():
                counts = np.bincount(split[own], minlength=len(SPLITS))
                spare = own[(counts[split[own]] > 1) & (can_test[own] | (wanted == TRAIN))]
                distance = np.maximum(low - keys[spare], keys[spare] - high)
                split[spare[distance.argmin()]] = wanted
    return split


def _most_copied(groups_of_class: Mapping[int, NDArray[np.int_]], lacking: Sequence[int]) -> int:
    """Return the class with the fewest groups of its own, of those that lack a split and those they share groups with.

    Args:
        groups_of_class: The groups of each class.
        lacking: The classes that lack a split.
    """
    disputed = np.concatenate([groups_of_class[target] for target in lacking])
    involved = [target for target, own in groups_of_class.items() if np.isin(own, disputed).any()]
    classes_of_group = np.bincount(np.concatenate(list(groups_of_class.values())))
    return min(involved, key=lambda target: ((classes_of_group[groups_of_class[target]] == 1).sum(), target))


def groups_by_class(groups: NDArray[np.int_], targets: NDArray[np.int_]) -> list[NDArray[np.int_]]:
    """Return the groups, ascending, that the photos of each class are in.

    Args:
        groups: int [N]: each photo's group.
        targets: int [N]: each photo's class.
    """
    width = groups.max(initial=0) + 1
    pairs = np.unique(targets * width + groups)
    return np.split(pairs % width, np.searchsorted(pairs, np.arange(1, targets.max(initial=0) + 1) * width))


def split_keys(digests: NDArray[np.bytes_], groups: NDArray[np.int_]) -> NDArray[np.float64]:
    """Return a key in [0, 1) for each group: the smallest SHA-256 of its photos, read as a fraction.

    Args:
        digests: S32 [N]: SHA-256 of each file.
        groups: int [N]: each photo's group.
    """
    first = np.ascontiguousarray(digests).view(">u8")[::4]
    smallest = np.full(groups.max() + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, groups, first.astype(np.uint64))
    return np.minimum(smallest / 2**64, np.nextafter(1, 0))
