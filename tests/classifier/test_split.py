"""Splits are decided by content, and nothing else moves a photo."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import digests_of

from flowers_batch.classifier.split import LEFT_OUT, TEST, TRAIN, VALIDATION, assign_splits, split_keys


def draw_photos(count: int, classes: int = 3):
    names = digests_of(range(count))
    groups = np.arange(count)
    targets = np.arange(count) % classes
    return names, groups, targets


def test_splits_have_their_shares_of_every_class():
    names, groups, targets = draw_photos(3000)
    splits = assign_splits(split_keys(names, groups), groups, targets)
    assert np.bincount(splits) / 3000 == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert all(len(np.unique(splits[targets == target])) == 3 for target in range(3))


def test_photos_keep_their_split_as_the_archive_grows():
    names, groups, targets = draw_photos(900)
    before = assign_splits(split_keys(names[:300], groups[:300]), groups[:300], targets[:300])
    after = assign_splits(split_keys(names, groups), groups, targets)
    np.testing.assert_array_equal(after[:300], before)


def test_merged_groups_move_to_one_split_together():
    names, groups, targets = draw_photos(300)
    keys = split_keys(names, groups)
    splits = assign_splits(keys, groups, targets)
    one, other = np.flatnonzero(splits == TEST)[0], np.flatnonzero(splits == TRAIN)[0]
    merged = np.where(groups == other, one, groups)
    merged = np.unique(merged, return_inverse=True)[1]
    after = assign_splits(split_keys(names, merged), merged, targets)
    assert after[one] == after[other] == TEST  # the smaller key decides
    rest = np.setdiff1d(np.arange(300), [one, other])
    np.testing.assert_array_equal(after[rest], splits[rest])


def test_empty_split_takes_the_group_of_the_nearest_key():
    keys = np.array([0.5, 0.25, 0.9, 0.05, 0.15, 0.6])
    splits = assign_splits(keys, np.arange(6), np.array([0, 0, 0, 1, 1, 1]))
    assert splits.tolist() == [VALIDATION, TEST, TRAIN, TEST, VALIDATION, TRAIN]


def test_classes_with_too_few_groups_for_a_test_are_trained():
    """Of a class whose only photo is a copy of another class's photo, that one decides."""
    keys, groups = np.array([0.5, 0.2, 0.1, 0.7, 0.8]), np.array([0, 0, 1, 2, 3, 4])
    splits = assign_splits(keys, groups, np.array([0, 0, 0, 1, 1, 1]))
    assert splits.tolist() == [TRAIN] * 3 + [VALIDATION, TEST, TRAIN]
    shared = assign_splits(keys[2:], np.array([0, 1, 2, 1]), np.array([1, 1, 1, 0]))
    assert shared[1] == shared[3]


def test_classes_with_fewer_groups_than_asked_for_are_left_out():
    keys, groups = np.array([0.5, 0.2, 0.1, 0.7, 0.8]), np.array([0, 0, 1, 2, 3, 4])
    splits = assign_splits(keys, groups, np.array([0, 0, 0, 1, 1, 1]), min_groups=3)
    assert splits.tolist() == [LEFT_OUT] * 3 + [VALIDATION, TEST, TRAIN]
    assert set(assign_splits(keys, groups, np.array([0, 0, 0, 1, 1, 1]), min_groups=4)) == {LEFT_OUT}


def test_class_of_other_classes_copies_is_left_out_and_no_other():
    """The third class could be in all splits only if one of the others were not."""
    targets = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    groups = np.array([0, 1, 2, 3, 4, 5, 0, 3, 1])
    keys = np.array([0.05, 0.15, 0.5, 0.05, 0.15, 0.5])
    splits = assign_splits(keys, groups, targets)
    assert splits.tolist() == [TEST, VALIDATION, TRAIN] * 2 + [LEFT_OUT] * 3


def test_only_randomly_chosen_photos_validate_and_test():
    """The others train or, where a near-duplicate of theirs tests, are left out."""
    names, groups, targets = draw_photos(3000)
    groups[1500:] = groups[:1500]  # near-duplicates, of the same classes
    random = np.arange(3000) % 7 == 0
    splits = assign_splits(split_keys(names, groups), groups, targets, are_random=random)
    assert not np.isin(splits[~random], [TEST, VALIDATION]).any()
    assert (np.bincount(splits[random]) > 0.1 * random.sum()).all()
    assert not set(groups[splits == TRAIN]) & set(groups[np.isin(splits, [TEST, VALIDATION])])
    left_out = splits == LEFT_OUT
    assert left_out.any() and np.isin(groups[left_out], groups[np.isin(splits, [TEST, VALIDATION])]).all()


def test_few_randomly_chosen_photos_are_not_spent_on_a_test():
    names, groups, targets = draw_photos(300)
    for of_each_class, tested in ((9, False), (10, True)):
        random = np.arange(300) < 3 * of_each_class
        splits = assign_splits(split_keys(names, groups), groups, targets, are_random=random)
        assert (splits == TEST).any() == tested and (splits != LEFT_OUT).all()
