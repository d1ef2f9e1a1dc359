"""Which photos belong together, and which side of the split each goes to: no copy of a photo is trained and tested on.

Photos belong together when their bytes are equal or their perceptual hashes nearly so: copies that were resized,
recompressed, brightened or cut a little, and the pictures of a burst. A group's side is decided by what is in it and
by nothing else, so that a photo stays on its side as the archive grows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from flowers_batch.config import InputError

SIDES = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
# Shares of all groups: those whose value lies below the first go to testing, below the second to validation.
_BOUNDS = {TEST: (0.0, 0.1), VALIDATION: (0.1, 0.2), TRAIN: (0.2, 1.0)}
# Bits of 64 in which the hashes of one picture may differ. benchmarks/copies.py measures copies and strangers: nearly
# all copies lie within it, and the nearest strangers not far beyond, more of them the more photos there are.
NEAR = 8
_PARTS = np.array([13, 13, 13, 13, 12])  # bits; where 8 bits differ, one of five parts differs in no more than one
_PAIRS = 1 << 22  # that are compared at once


def group(digests: NDArray[np.bytes_], hashes: NDArray[np.uint64]) -> NDArray[np.int_]:
    """Puts photos that are equal, or nearly so, into one group, and so on with whatever is near to those.

    Args:
        digests: S32 [N]: SHA-256 of each file.
        hashes: [N]: perceptual hashes (`decode.perceptual_hash`).

    Returns:
        int [N]: each photo's group, counted from 0.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, digest = np.unique(digests, return_inverse=True)
    distinct, of_photo = np.unique(hashes, return_inverse=True)
    # Photos, then digests, then hashes are the nodes of a graph.
    photos = np.arange(len(digests))
    first_hash = len(photos) + (digest.max(initial=-1) + 1)
    edges = [(photos, len(photos) + digest), (photos, first_hash + of_photo)]
    edges += [(first_hash + one, first_hash + other) for one, other in _near(distinct)]
    nodes = first_hash + len(distinct)
    rows, columns = (np.concatenate(side) for side in zip(*edges, strict=True))
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(nodes, nodes))
    return np.unique(connected_components(graph, directed=False)[1][: len(photos)], return_inverse=True)[1]


def _near(hashes: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Pairs of different hashes of which no more than `NEAR` bits differ, as two arrays of positions.

    Of two such hashes at least one of five parts differs in one bit or none, so only those are compared (Norouzi,
    Punjani and Fleet, 2012, "Fast Search in Hamming Space with Multi-Index Hashing").
    """
    shift = 0
    for bits in _PARTS.tolist():
        part = (hashes >> np.uint64(shift)).astype(np.int64) & ((1 << bits) - 1)
        shift += bits
        order = np.argsort(part, kind="stable")
        starts = np.searchsorted(part[order], np.arange((1 << bits) + 1))
        for flipped in (0, *(1 << bit for bit in range(bits))):
            sought = part ^ flipped
            first, counts = starts[sought], starts[sought + 1] - starts[sought]
            ends = np.cumsum(counts)
            begin = 0
            while begin < len(hashes):
                end = max(begin + 1, int(np.searchsorted(ends, ends[begin] - counts[begin] + _PAIRS)))
                count = counts[begin:end]
                one = np.repeat(np.arange(begin, end), count)
                within = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
                other = order[np.repeat(first[begin:end], count) + within]
                near = (one < other) & (np.bitwise_count(hashes[one] ^ hashes[other]) <= NEAR)
                if near.any():
                    yield one[near], other[near]
                begin = end


def split(
    values: NDArray[np.floating], groups: NDArray[np.int_], targets: NDArray[np.int_], classes: list[str]
) -> NDArray[np.int_]:
    """Decides the side of each photo: 80% of the groups train, 10% validate, 10% test.

    A class that would have no photo on a side gives it the group that lies nearest.

    Args:
        values: [groups], in [0, 1): what decides on a group's side; see `values_of`.
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


def values_of(digests: NDArray[np.bytes_], groups: NDArray[np.int_]) -> NDArray[np.float64]:
    """What decides on each group's side, in [0, 1): its smallest SHA-256, read as a fraction."""
    first = np.ascontiguousarray(digests).view(">u8")[::4]
    smallest = np.full(groups.max() + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, groups, first.astype(np.uint64))
    return np.minimum(smallest / 2**64, np.nextafter(1, 0))
