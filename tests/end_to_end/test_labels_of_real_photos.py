"""What the benchmark of labels measures, on real photos with real weights: a few labels are worth something."""

from __future__ import annotations

import importlib
import statistics

import numpy as np
import pytest
from helpers import ROOT

import flowers_batch as fb

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def benchmark():
    """The benchmark of labels, as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("labels")


@pytest.fixture(scope="module")
def labelled(benchmark, local_ray, real_photos, real_weights, tmp_path_factory):
    """Codes of real photos whose labels are known."""
    scratch = tmp_path_factory.mktemp("labelled")
    fb.encode(real_photos, scratch / "codes", fb.EncodeConfig(weights=str(real_weights), layer="pool5", pool="avg"))
    return benchmark.LabelledArchive(scratch / "codes", scratch)


def test_normalization_of_real_codes_is_by_their_norm(labelled):
    _, metrics = labelled.train(np.arange(len(labelled)))
    assert metrics["heads"]["logistic"]["normalization"] in ("l2", "sqrt_l2")


def test_normalization_of_random_codes_keeps_their_norm(local_ray, real_photos, tmp_path):
    """Random filters tell photos apart by colour and brightness, and these change a code's length."""
    fb.encode(real_photos, tmp_path / "codes", fb.EncodeConfig(weights="random:0"))
    metrics = fb.train(tmp_path / "codes", tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    assert metrics["heads"]["logistic"]["normalization"] in ("none", "standardized")


def test_suggested_labels_beat_random_ones(benchmark, labelled):
    rounds = np.array([benchmark.suggested_and_random(labelled, seed) for seed in range(benchmark.ROUNDS)])
    suggested, random = rounds.mean(0).T  # of each number of labels
    assert len(suggested) >= 2 and (suggested > random).all()


def test_planted_wrong_labels_are_found(benchmark, labelled):
    rounds = [benchmark.planted_errors(labelled, seed) for seed in range(benchmark.ROUNDS)]
    recall, precision, of_first_half = np.mean(rounds, axis=0)
    assert recall >= 0.7 and precision >= 0.45 and of_first_half >= 0.65


def test_photos_of_unknown_classes_are_less_certain(benchmark, labelled):
    rows, values = benchmark.unknown_classes(labelled)
    assert len(rows) == len(labelled.classes) and statistics.mean(values) >= 0.65


def test_few_labels_give_an_accurate_classifier(benchmark, labelled):
    draws = [benchmark.measure_draw(labelled, 20, seed) for seed in range(benchmark.ROUNDS)]
    assert statistics.mean(draw.accuracy for draw in draws) >= 0.75
