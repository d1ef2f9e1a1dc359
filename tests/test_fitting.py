"""Heads are what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from flowers_batch.classifier.fitting import C_CANDIDATES, KINDS, LOGISTIC, MLP, fit, logits_of
from flowers_batch.classifier.labelled_codes import LabelledCodes, sample_of

WIDTH = 24


def drawn(count: int, classes: int = 3, spread: float = 1.0, seed: int = 0, shares=None) -> LabelledCodes:
    """Codes that lie around a point of their class."""
    centres = np.random.default_rng(9).normal(0, 1, (classes, WIDTH))
    random = np.random.default_rng(seed)
    targets = random.choice(classes, count, p=shares)
    codes = random.normal(centres[targets], spread) * np.linspace(0.1, 30, WIDTH) + 5
    return sample_of(codes.astype(np.float16), targets)


def accuracy(head, sample: LabelledCodes) -> float:
    return float((logits_of(head, sample).argmax(1) == sample.targets).mean())


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("C", [1e-3, 1.0])
def test_logistic_is_scikit_learns(classes, C):
    train, test = drawn(300, classes, 3), drawn(100, classes, 3, seed=1)
    names = tuple("abcde"[:classes])
    head = fit(LOGISTIC, train, test, names, 0, C).head
    scaler = StandardScaler().fit(train.array().astype(np.float64))
    theirs = LogisticRegression(C=C, class_weight="balanced", max_iter=2000, tol=1e-8)
    theirs.fit(scaler.transform(train.array()), train.targets)
    # Of two classes, scikit-learn penalises one kernel, which is the difference of ours: half the penalty.
    if classes > 2:
        expected = theirs.predict_proba(scaler.transform(test.array()))
        np.testing.assert_allclose(head.probabilities(test.array()), expected, atol=5e-3)
    assert accuracy(head, test) >= theirs.score(scaler.transform(test.array()), test.targets) - 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_and_codes_give_the_same_head(kind):
    train, validation = drawn(200), drawn(60, seed=1)
    one, same = (fit(kind, train, validation, tuple("abc"), 7).head.identity for _ in range(2))
    assert one == same
    if kind == MLP:
        assert fit(kind, train, validation, tuple("abc"), 8).head.identity != one


@pytest.mark.parametrize("kind", KINDS)
def test_rare_classes_are_not_forgotten(kind):
    train, test = drawn(600, spread=2.5, shares=[0.9, 0.05, 0.05]), drawn(900, spread=2.5, seed=1)
    head = fit(kind, train, drawn(200, spread=2.5, seed=2), tuple("abc"), 0).head
    told = head.logits(test.array()).argmax(1)
    recalls = [(told[test.targets == target] == target).mean() for target in range(3)]
    assert min(recalls) > 0.5


def test_c_follows_the_noise():
    names = tuple("abc")
    noisy = fit(LOGISTIC, drawn(120, spread=8), drawn(60, seed=1), names, 0)
    clear = fit(LOGISTIC, drawn(900, spread=0.5), drawn(60, seed=1), names, 0)
    assert noisy.C in C_CANDIDATES and clear.C in C_CANDIDATES
    assert noisy.C < clear.C


def test_a_network_learns_what_a_plane_cannot_and_stops_in_time():
    random = np.random.default_rng(0)
    codes = random.normal(0, 1, (900, 2)).astype(np.float32)
    circle = ((codes**2).sum(1) > 1.4).astype(int)
    sample = sample_of(codes, circle)
    train, validation, test = (sample[np.arange(900) % 3 == side] for side in range(3))
    network = fit(MLP, train, validation, ("in", "out"), 0)
    assert accuracy(network.head, test) > 0.8 > accuracy(fit(LOGISTIC, train, validation, ("in", "out"), 0).head, test)
    noise = sample_of(codes, random.integers(0, 2, 900))
    early = fit(MLP, noise[np.arange(900) < 600], noise[np.arange(900) >= 600], ("in", "out"), 0)
    assert early.epochs < 40


def test_copies_in_one_fold_do_not_make_a_c_look_good():
    """Noise that is repeated ten times can be learnt by heart: only folds that share copies would think well of it."""
    random = np.random.default_rng(3)
    codes = np.repeat(random.normal(0, 1, (40, 200)), 10, 0).astype(np.float32)
    targets = np.repeat(random.integers(0, 2, 40), 10)
    together = sample_of(codes, targets, np.repeat(np.arange(40), 10))
    apart = sample_of(codes, targets)
    names = ("a", "b")
    assert fit(LOGISTIC, together, together, names, 0).C < fit(LOGISTIC, apart, apart, names, 0).C
