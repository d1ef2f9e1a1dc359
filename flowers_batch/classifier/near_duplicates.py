"""Groups of photos that are equal or nearly so.

Photos belong together when their bytes are equal or their perceptual hashes nearly so: copies that were resized,
recompressed, brightened or cropped a little, and the pictures of a burst.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

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
