"""A head's probabilities and its identity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import some_head

from flowers_batch.classifier.normalization import Normalization

CLASSES = ("daisy", "Löwenzahn", "roses")


@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize("store", [np.float16, np.float32])
def test_probabilities_equal_a_straightforward_computation(hidden, store):
    head = some_head(CLASSES, 8, hidden=hidden, temperature=1.7)
    codes = np.random.default_rng(5).gamma(1, 3, (20, 8)).astype(store)
    expected = []
    for code in codes.astype(np.float64):
        values = (code - head.normalization.mean) / head.normalization.scale
        if hidden:
            values = np.clip(values @ head.layers[0][0] + head.layers[0][1], 0, None)
        odds = np.exp((values @ head.layers[-1][0] + head.layers[-1][1]) / 1.7)
        expected.append(odds / odds.sum())
    result = head.probabilities(codes)
    assert (result.dtype, result.shape) == (np.float32, (20, 3))
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_probabilities_of_huge_codes_sum_to_one():
    codes = np.random.default_rng(5).normal(0, 60_000, (50, 8)).clip(-65_000, 65_000).astype(np.float16)
    result = some_head(CLASSES, 8).probabilities(codes)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result.sum(1), 1, atol=1e-6)


def test_higher_temperature_is_less_certain_in_the_same_order():
    codes = np.random.default_rng(5).normal(0, 3, (50, 8)).astype(np.float32)
    certain, uncertain = (some_head(CLASSES, 8, temperature=value).probabilities(codes) for value in (1.0, 5.0))
    assert (uncertain.max(1) < certain.max(1)).all()
    assert (uncertain.argmax(1) == certain.argmax(1)).all()


def test_identity_changes_with_all_that_labels_depend_on():
    head = some_head(CLASSES, 8, hidden=6, threshold=0.5)
    standardized = head.normalization
    others = [
        replace(head, classes=("daisy", "Löwenzahn", "tulips")),
        replace(head, classes=("Löwenzahn", "daisy", "roses")),
        replace(head, temperature=1.0001),
        replace(head, threshold=0.5001),
        replace(head, threshold=None),
        *(replace(head, normalization=Normalization(name)) for name in ("none", "l2", "sqrt_l2")),
        replace(head, normalization=replace(standardized, mean=np.nextafter(standardized.mean, np.float32(9)))),
        replace(head, normalization=replace(standardized, scale=np.nextafter(standardized.scale, np.float32(9)))),
        replace(head, normalization=replace(standardized, mean=standardized.scale, scale=standardized.mean)),
    ]
    kernel, bias = head.layers[0]
    others.append(replace(head, layers=((kernel.reshape(6, 8), bias), head.layers[1])))
    for layer in range(2):
        for part in range(2):
            layers = [[array.copy() for array in pair] for pair in head.layers]
            layers[layer][part].flat[-1] += np.float32(1e-3)
            others.append(replace(head, layers=tuple(map(tuple, layers))))
    identities = {head.identity, *(other.identity for other in others)}
    assert len(identities) == len(others) + 1


def test_identity_is_equal_for_equal_heads():
    assert some_head(CLASSES, 8).identity == some_head(CLASSES, 8).identity
