"""Groups of photos that are equal or nearly so.

Two photos belong together when their bytes are equal or their perceptual hashes differ in few bits: copies that were
resized, recompressed, brightened or cropped a little, and the pictures of a burst.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

# Bits of 64 in which the hashes of near-duplicates may differ. benchmarks/copies.py measures the distances of edited
# copies and of different photos: nearly all copies are within it; different photos come close to it, the more of them
# there are.
MAX_DISTANCE = 8
# The bits of a hash's parts, and in how many of them one part of two near hashes differs at most: if 8 bits differ, one
# of five parts has at most one of them, and one of three at most two. Of many hashes, few share a long part.
_PARTS_OF_FEW, _PARTS_OF_MANY = ((13, 13, 13, 13, 12), 1), ((22, 21, 21), 2)
_MANY_HASHES = 1 << 18
_PAIRS_AT_ONCE = 1 << 22


def group_near_duplicates(
    digests: NDArray[np.bytes_], hashes: NDArray[np.uint64], pairs_at_once: int = _PAIRS_AT_ONCE
) -> NDArray[np.int_]:
    """Put photos that are equal or nearly so into one group; near-duplicates of near-duplicates join it.

    Args:
        digests: S32 [N]: SHA-256 of each file.
        hashes: uint64 [N]: perceptual hashes (`decoding.perceptual_hash`).
        pairs_at_once: Pairs of hashes that are compared in one step, which bounds the memory.

    Returns:
        int [N]: each photo's group, counted from 0.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    distinct, hash_of_photo = np.unique(hashes, return_inverse=True)
    edges = [_of_equal_files(digests, hash_of_photo), *_near_pairs(distinct, pairs_at_once)]
    rows, columns = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    size = len(distinct)
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(size, size))
    return _in_order(connected_components(graph, directed=False)[1][hash_of_photo])


def _of_equal_files(
    digests: NDArray[np.bytes_], hash_of_photo: NDArray[np.int_]
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return the hashes of photos with equal digests, as two arrays."""
    order = np.argsort(digests)
    in_order = digests[order]
    (equal,) = np.nonzero(in_order[1:] == in_order[:-1])
    return hash_of_photo[order[equal]], hash_of_photo[order[equal + 1]]


def _in_order(groups: NDArray[np.int_]) -> NDArray[np.int_]:
    """Return groups, numbered from 0, with numbers in the order of their first photos."""
    first = np.empty(groups.max(initial=-1) + 1, np.int64)
    first[groups[::-1]] = np.arange(len(groups))[::-1]  # of several values for one place, the last one stays
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[groups]


def _near_pairs(hashes: NDArray[np.uint64], pairs_at_once: int) -> Iterator[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Yield pairs of different hashes within `MAX_DISTANCE` of each other, as two arrays of positions.

    Of two such hashes at least one part differs in few bits, so only hashes with such a part are compared (Norouzi,
    Punjani and Fleet, 2012, "Fast Search in Hamming Space with Multi-Index Hashing").
    """
    part_bits, differing = _PARTS_OF_MANY if len(hashes) > _MANY_HASHES else _PARTS_OF_FEW
    shift = 0
    for bits in part_bits:
        part = (hashes >> np.uint64(shift) & np.uint64((1 << bits) - 1)).astype(np.int32)
        shift += bits
        order = np.argsort(part, kind="stable").astype(np.int32)  # half the memory: there are fewer than 2^31 hashes
        starts = np.searchsorted(part[order], np.arange((1 << bits) + 1)).astype(np.int32)
        for flipped in _flips(bits, differing):
            wanted = part ^ flipped
            first, counts = starts[wanted], starts[wanted + 1] - starts[wanted]
            ends = np.cumsum(counts, dtype=np.int64)
            begin = 0
            while begin < len(hashes):
                end = max(begin + 1, int(np.searchsorted(ends, ends[begin] - counts[begin] + pairs_at_once)))
                count = counts[begin:end]
                one = np.repeat(np.arange(begin, end), count)
                within = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
                other = order[np.repeat(first[begin:end], count) + within]
                near = (one < other) & (np.bitwise_count(hashes[one] ^ hashes[other]) <= MAX_DISTANCE)
                if near.any():
                    yield one[near], other[near]
                begin = end


def _flips(bits: int, most: int) -> Iterator[int]:
    """Yield all numbers of so many bits of which at most `most` are set."""
    for count in range(most + 1):
        for chosen in combinations(range(bits), count):
            yield sum(1 << bit for bit in chosen)
