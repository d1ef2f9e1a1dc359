"""Calibration and thresholds of probabilities whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from calibrated_logits import draw_logits
from scipy.special import softmax

from flowers_batch.classifier.calibration import (
    TopLabels,
    at_threshold,
    calibrate,
    calibration_curve,
    expected_calibration_error,
    fit_temperature,
    is_lower,
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


@pytest.mark.parametrize(("count", "heat", "applied"), [(60, 1.0, False), (40, 1.15, False), (2000, 3.0, True)])
def test_temperature_is_applied_if_it_helps_beyond_noise(count, heat, applied):
    targets, logits = draw_logits(count, heat)
    assert (calibrate(logits, targets) != 1) == applied


def test_lower_losses_are_told_from_noise():
    random = np.random.default_rng(0)
    losses = random.exponential(1, 200)
    assert is_lower(losses - 0.01, losses)
    assert not is_lower(losses + random.normal(0, 1, 200), losses)
    assert not is_lower(losses, losses)


def test_labels_at_a_threshold_are_counted():
    top = np.array([0.99, 0.9, 0.8, 0.7, 0.7, 0.6, 0.55])
    correct = np.array([1, 1, 0, 1, 1, 0, 0], bool)
    labels = TopLabels(correct.astype(int), np.ones(7, int), top)
    assert at_threshold(labels, 0.7) == pytest.approx({"precision": 0.8, "coverage": 5 / 7})
    wrong = TopLabels(np.array([1]), np.array([0]), np.array([0.7]))
    assert at_threshold(wrong, 2.0) == {"precision": None, "coverage": 0.0}
