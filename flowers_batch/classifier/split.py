"""The split into training, validation and test photos; near-duplicates never straddle it.

A group's split is decided by the content of its photos and by nothing else, so that a photo stays in its split as the
archive grows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowers_batch.errors import InputError

SIDES = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
# Shares of all groups: those whose value lies below the first go to testing, below the second to validation.
_BOUNDS = {TEST: (0.0, 0.1), VALIDATION: (0.1, 0.2), TRAIN: (0.2, 1.0)}


def split(
    values: NDArray[np.floating], groups: NDArray[np.int_], targets: NDArray[np.int_], classes: list[str]
) -> NDArray[np.int_]:
    """Decides the side of each photo: 80% of the groups train, 10% validate, 10% test.

    A class that would have no photo on a side gives it the group that lies nearest.

    Args:
        values: [groups], in [0, 1): what decides on a group's side; see `split_keys`.
        groups: int [N]: each photo's group.
        targets: int [N]: each photo's class.
        classes: The classes' names.

    Returns:
        int [N]: an index into SIDES.

    Raises:
        InputError: A class has fewer than three groups, or shares them with others so that a side stays empty.
    """
    side = np.select([(low <= values) & (values < high) for low, high in _BOUNDS.values()], list(_BOUNDS), TRAIN)
    owned = [np.unique(groups[targets == target]) for target in range(len(classes))]
    rare = [f"{name} ({len(own)})" for name, own in zip(classes, owned, strict=True) if len(own) < len(SIDES)]
    if rare:
        raise InputError(
            f"Each class needs at least {len(SIDES)} photos that are no copies of each other, to train, to validate "
            f"and to test with. Too few are in: {', '.join(rare)}; add photos, or leave these classes out."
        )
    for own in owned:
        for wanted, (low, high) in _BOUNDS.items():
            if not (side[own] == wanted).any():
                counts = np.bincount(side[own], minlength=len(SIDES))
                spare = own[counts[side[own]] > 1]
                away = np.maximum(low - values[spare], values[spare] - high)
                side[spare[away.argmin()]] = wanted
    for name, own in zip(classes, owned, strict=True):
        if len(np.unique(side[own])) < len(SIDES):
            raise InputError(f"The photos of {name} are copies of other classes' photos: correct their labels.")
    return side[groups]


def split_keys(digests: NDArray[np.bytes_], groups: NDArray[np.int_]) -> NDArray[np.float64]:
    """What decides on each group's side, in [0, 1): its smallest SHA-256, read as a fraction."""
    first = np.ascontiguousarray(digests).view(">u8")[::4]
    smallest = np.full(groups.max() + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, groups, first.astype(np.uint64))
    return np.minimum(smallest / 2**64, np.nextafter(1, 0))
