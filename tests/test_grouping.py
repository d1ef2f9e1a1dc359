"""Copies stay together, sides are decided by content, and nothing else moves a photo."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
import pytest

from flowers_batch.classifier import near_duplicates
from flowers_batch.classifier.near_duplicates import NEAR, group
from flowers_batch.classifier.split import TEST, TRAIN, VALIDATION, split, split_keys
from flowers_batch.errors import InputError


def digests(names) -> np.ndarray:
    return np.array([hashlib.sha256(str(name).encode()).digest() for name in names], "S32")


def sets(groups: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(groups == number).tolist()) for number in np.unique(groups)}


def linked(count: int, pairs) -> set[frozenset[int]]:
    """Groups by the plainest way: every pair is looked at."""
    found = {number: {number} for number in range(count)}
    for one, other in pairs:
        if found[one] is not found[other]:
            found[one] |= found[other]
            for member in found[other]:
                found[member] = found[one]
    return {frozenset(members) for members in found.values()}


@pytest.mark.parametrize("pairs_at_once", [1, 1 << 22])
def test_groups_are_those_of_all_pairs(monkeypatch, pairs_at_once):
    monkeypatch.setattr(near_duplicates, "_PAIRS", pairs_at_once)
    random = np.random.default_rng(0)
    originals = random.integers(0, 2**64, 60, np.uint64)
    hashes = np.concatenate([originals, originals[random.integers(0, 60, 240)]])
    for number in range(60, 300):  # as many bits as may differ, and some more
        for bit in random.permutation(64)[: random.integers(0, 13)]:
            hashes[number] ^= np.uint64(1) << np.uint64(bit)
    names = [*range(280), *range(20)]  # the last are copies of the first, however their hashes differ
    pairs = [
        (one, other)
        for one, other in combinations(range(300), 2)
        if names[one] == names[other] or int(hashes[one] ^ hashes[other]).bit_count() <= NEAR
    ]
    found = group(digests(names), hashes)
    assert sets(found) == linked(300, pairs)
    assert 60 < len(sets(found)) < 250


def test_one_bit_too_many_is_another_picture():
    assert NEAR == 8  # what benchmarks/copies.py was measured for
    assert len(np.unique(group(digests("ab"), np.array([0, (1 << NEAR) - 1], np.uint64)))) == 1
    assert len(np.unique(group(digests("ab"), np.array([0, (1 << (NEAR + 1)) - 1], np.uint64)))) == 2


def test_many_photos_with_one_hash_take_no_time():
    hashes = np.zeros(300_000, np.uint64)
    assert group(digests(range(300_000)), hashes).max() == 0


def some(count: int, classes: int = 3):
    names = digests(range(count))
    groups = np.arange(count)
    targets = np.arange(count) % classes
    return names, groups, targets, [f"class {number}" for number in range(classes)]


def test_sides_have_their_shares_and_every_class():
    names, groups, targets, classes = some(3000)
    sides = split(split_keys(names, groups), groups, targets, classes)
    assert np.bincount(sides) / 3000 == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert all(len(np.unique(sides[targets == target])) == 3 for target in range(3))


def test_photos_stay_on_their_sides_as_the_archive_grows():
    names, groups, targets, classes = some(900)
    before = split(split_keys(names[:300], groups[:300]), groups[:300], targets[:300], classes)
    after = split(split_keys(names, groups), groups, targets, classes)
    np.testing.assert_array_equal(after[:300], before)


def test_a_group_is_on_one_side_and_moves_whole_when_it_merges():
    names, groups, targets, classes = some(300)
    values = split_keys(names, groups)
    sides = split(values, groups, targets, classes)
    one, other = np.flatnonzero(sides == TEST)[0], np.flatnonzero(sides == TRAIN)[0]
    merged = np.where(groups == other, one, groups)
    merged = np.unique(merged, return_inverse=True)[1]
    after = split(split_keys(names, merged), merged, targets, classes)
    assert after[one] == after[other] == TEST  # the smaller value decides
    rest = np.setdiff1d(np.arange(300), [one, other])
    np.testing.assert_array_equal(after[rest], sides[rest])


def test_an_empty_side_takes_the_nearest_group():
    values = np.array([0.5, 0.25, 0.9, 0.05, 0.15, 0.6])
    sides = split(values, np.arange(6), np.array([0, 0, 0, 1, 1, 1]), ["few", "enough"])
    assert sides.tolist() == [VALIDATION, TEST, TRAIN, TEST, VALIDATION, TRAIN]


def test_classes_with_too_few_different_photos_are_named():
    values, groups = np.array([0.5, 0.2, 0.1, 0.7, 0.8]), np.array([0, 0, 1, 2, 3, 4])
    with pytest.raises(InputError, match=r"rare \(2\)"):
        split(values, groups, np.array([0, 0, 0, 1, 1, 1]), ["rare", "enough"])
