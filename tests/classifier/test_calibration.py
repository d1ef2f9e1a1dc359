"""Calibration and thresholds of probabilities whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from calibrated_logits import draw_logits
from scipy.special import softmax

from flowers_batch.classifier.calibration import (
    TopLabels,
    at_threshold,
    calibration_curve,
    expected_calibration_error,
    find_threshold,
    fit_temperature,
    log_loss,
)


def top_labels(targets, probabilities) -> TopLabels:
    return TopLabels(targets, probabilities.argmax(1), probabilities.max(1))


@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
def test_temperature_is_found_and_calibrates(heat):
    temperature = fit_temperature(*reversed(draw_logits(5000, heat)))
    assert temperature == pytest.approx(heat, rel=0.1)
    targets, logits = draw_logits(20_000, heat, seed=1)
    curve = calibration_curve(top_labels(targets, softmax(logits / temperature, 1)))
    assert expected_calibration_error(curve) < 0.02
    ninth = next(point for point in curve if 0.8 <= point["probability"] < 0.9)
    assert ninth["accuracy"] == pytest.approx(ninth["probability"], abs=0.03)
    if heat != 1:
        assert expected_calibration_error(calibration_curve(top_labels(targets, softmax(logits, 1)))) > 0.05


def test_log_loss_of_uncertain_and_certain():
    assert log_loss(np.array([[0.0, 0.0]]), np.array([0])) == pytest.approx(np.log(2))
    assert log_loss(np.array([[1e4, 0.0]]), np.array([0])) == 0.0


def test_threshold_is_the_lowest_of_the_precision():
    top = np.array([0.99, 0.9, 0.8, 0.7, 0.7, 0.6, 0.55])
    correct = np.array([1, 1, 0, 1, 1, 0, 0], bool)
    labels = TopLabels(correct.astype(int), np.ones(7, int), top)
    assert find_threshold(labels, 0.8) == 0.7
    assert at_threshold(labels, 0.7) == pytest.approx({"precision": 0.8, "coverage": 5 / 7})
    assert find_threshold(labels, 1.0) == 0.9
    # Of equal probabilities, all or none are above the threshold.
    assert find_threshold(TopLabels(np.array([0, 1]), np.zeros(2, int), np.array([0.7, 0.7])), 0.9) > 1
    wrong = TopLabels(np.array([1]), np.array([0]), np.array([0.7]))
    assert at_threshold(wrong, 2.0) == {"precision": None, "coverage": 0.0}
