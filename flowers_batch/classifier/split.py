"""The split into training, validation and test photos; near-duplicates never straddle it.

A group's split is decided by the content of its photos and by nothing else, so that a photo stays in its split as the
archive grows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowers_batch.errors import InputError

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
# Of each split, the range of its groups' keys in [0, 1): its share of all groups.
_KEY_RANGES = {TEST: (0.0, 0.1), VALIDATION: (0.1, 0.2), TRAIN: (0.2, 1.0)}


def assign_splits(
    keys: NDArray[np.floating], groups: NDArray[np.int_], targets: NDArray[np.int_], classes: list[str]
) -> NDArray[np.int_]:
    """Return the split of each photo: 80% of the groups train, 10% validate, 10% test.

    If a class has no photo in a split, its group with the nearest key moves there.

    Args:
        keys: [groups], in [0, 1): see `split_keys`.
        groups: int [N]: each photo's group.
        targets: int [N]: each photo's class.
        classes: The classes' names.

    Returns:
        int [N]: an index into SPLITS.

    Raises:
        InputError: A class has fewer than three groups, or shares them with other classes so that a split stays empty.
    """
    split = np.select([(low <= keys) & (keys < high) for low, high in _KEY_RANGES.values()], list(_KEY_RANGES), TRAIN)
    groups_of_class = [np.unique(groups[targets == target]) for target in range(len(classes))]
    rare = [
        f"{name} ({len(own)})" for name, own in zip(classes, groups_of_class, strict=True) if len(own) < len(SPLITS)
    ]
    if rare:
        raise InputError(
            f"Each class needs at least {len(SPLITS)} photos that are no copies of each other: to train, to validate "
            f"and to test with. Too few are in: {', '.join(rare)}. Add photos, or leave these classes out."
        )
    for own in groups_of_class:
        for wanted, (low, high) in _KEY_RANGES.items():
            if not (split[own] == wanted).any():
                counts = np.bincount(split[own], minlength=len(SPLITS))
                spare = own[counts[split[own]] > 1]
                distance = np.maximum(low - keys[spare], keys[spare] - high)
                split[spare[distance.argmin()]] = wanted
    for name, own in zip(classes, groups_of_class, strict=True):
        if len(np.unique(split[own])) < len(SPLITS):
            raise InputError(f"The photos of {name} are copies of other classes' photos: correct their labels.")
    return split[groups]


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
