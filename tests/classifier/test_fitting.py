"""Both kinds of heads fit what they should."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from flowers_batch.classifier.fitting import KINDS, LOGISTIC, MLP, fit, predict_logits
from flowers_batch.classifier.labelled_codes import LabelledCodes, labelled_codes_of
from flowers_batch.classifier.regression_choice import Regression

WIDTH = 24


def draw_codes(count: int, classes: int = 3, spread: float = 1.0, seed: int = 0, shares=None) -> LabelledCodes:
    """Draw codes that are normally distributed around the centre of their class."""
    centres = np.random.default_rng(9).normal(0, 1, (classes, WIDTH))
    random = np.random.default_rng(seed)
    targets = random.choice(classes, count, p=shares)
    codes = random.normal(centres[targets], spread) * np.linspace(0.1, 30, WIDTH) + 5
    return labelled_codes_of(codes.astype(np.float16), targets)


def accuracy(head, labelled: LabelledCodes) -> float:
    return float((predict_logits(head, labelled).argmax(1) == labelled.targets).mean())


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("C", [1e-3, 1.0])
def test_logistic_regression_is_that_of_scikit_learn(classes, C):
    train, test = draw_codes(300, classes, 3), draw_codes(100, classes, 3, seed=1)
    names = tuple("abcde"[:classes])
    head = fit(LOGISTIC, train, test, names, 0, Regression("standardized", C)).head
    scaler = StandardScaler().fit(train.array().astype(np.float64))
    theirs = LogisticRegression(C=C, class_weight="balanced", max_iter=2000, tol=1e-8)
    theirs.fit(scaler.transform(train.array()), train.targets)
    # Of two classes, scikit-learn penalises one kernel, which is the difference of ours: half the penalty.
    if classes > 2:
        expected = theirs.predict_proba(scaler.transform(test.array()))
        np.testing.assert_allclose(head.probabilities(test.array()), expected, atol=5e-3)
    assert accuracy(head, test) >= theirs.score(scaler.transform(test.array()), test.targets) - 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_and_codes_give_equal_heads(kind):
    train, validation = draw_codes(60), draw_codes(30, seed=1)
    one, same = (fit(kind, train, validation, tuple("abc"), 7).head.identity for _ in range(2))
    assert one == same
    if kind == MLP:
        assert fit(kind, train, validation, tuple("abc"), 8).head.identity != one


@pytest.mark.parametrize("kind", KINDS)
def test_rare_classes_count_as_much_as_others(kind):
    train, test = draw_codes(600, spread=2.5, shares=[0.9, 0.05, 0.05]), draw_codes(900, spread=2.5, seed=1)
    head = fit(kind, train, draw_codes(200, spread=2.5, seed=2), tuple("abc"), 0).head
    predicted = head.logits(test.array()).argmax(1)
    recalls = [(predicted[test.targets == target] == target).mean() for target in range(3)]
    assert min(recalls) > 0.5


def test_network_learns_a_circle_and_stops_early_on_noise():
    random = np.random.default_rng(0)
    codes = random.normal(0, 1, (900, 2)).astype(np.float32)
    circle = ((codes**2).sum(1) > 1.4).astype(int)
    labelled = labelled_codes_of(codes, circle)
    train, validation, test = (labelled[np.arange(900) % 3 == split] for split in range(3))
    network = fit(MLP, train, validation, ("in", "out"), 0)
    assert accuracy(network.head, test) > 0.8 > accuracy(fit(LOGISTIC, train, validation, ("in", "out"), 0).head, test)
    noise = labelled_codes_of(codes, random.integers(0, 2, 900))
    early = fit(MLP, noise[np.arange(900) < 600], noise[np.arange(900) >= 600], ("in", "out"), 0)
    assert early.epochs < 40
