"""Near-duplicates are found, and only they."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from helpers import digests_of

from flowers_batch.classifier.near_duplicates import MAX_DISTANCE, group_near_duplicates


def sets(groups: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(groups == number).tolist()) for number in np.unique(groups)}


def linked(count: int, pairs) -> set[frozenset[int]]:
    """Return the groups by brute force."""
    found = {number: {number} for number in range(count)}
    for one, other in pairs:
        if found[one] is not found[other]:
            found[one] |= found[other]
            for member in found[other]:
                found[member] = found[one]
    return {frozenset(members) for members in found.values()}


@pytest.mark.parametrize(("pairs_at_once", "many"), [(1, 1 << 18), (1 << 22, 1 << 18), (1 << 22, 0)])
def test_groups_are_those_of_all_pairs(pairs_at_once, many, monkeypatch):
    monkeypatch.setattr("flowers_batch.classifier.near_duplicates._MANY_HASHES", many)
    random = np.random.default_rng(0)
    originals = random.integers(0, 2**64, 60, np.uint64)
    hashes = np.concatenate([originals, originals[random.integers(0, 60, 240)]])
    for number in range(60, 300):  # up to the allowed distance, and beyond
        for bit in random.permutation(64)[: random.integers(0, 13)]:
            hashes[number] ^= np.uint64(1) << np.uint64(bit)
    names = [*range(280), *range(20)]  # the last ones have the digests of the first
    pairs = [
        (one, other)
        for one, other in combinations(range(300), 2)
        if names[one] == names[other] or int(hashes[one] ^ hashes[other]).bit_count() <= MAX_DISTANCE
    ]
    found = group_near_duplicates(digests_of(names), hashes, pairs_at_once)
    assert sets(found) == linked(300, pairs)
    assert 60 < len(sets(found)) < 250


def test_more_bits_than_allowed_make_another_picture():
    assert MAX_DISTANCE == 8  # what benchmarks/copies.py was measured for
    for bits, groups in ((MAX_DISTANCE, 1), (MAX_DISTANCE + 1, 2)):
        hashes = np.array([0, (1 << bits) - 1], np.uint64)
        assert len(np.unique(group_near_duplicates(digests_of("ab"), hashes))) == groups


def test_many_photos_with_one_hash_are_grouped_fast():
    hashes = np.zeros(300_000, np.uint64)
    assert group_near_duplicates(digests_of(range(300_000)), hashes).max() == 0
