"""Calibration of probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 10  # of a calibration curve, each a tenth of [0, 1]
_TEMPERATURES = (0.05, 20.0)  # bounds of the search
_NORMAL_QUANTILE = 1.645  # which a standard normal variable exceeds with a probability of 5%


def log_losses(
    logits: NDArray[np.floating], targets: NDArray[np.int_], temperature: float = 1.0
) -> NDArray[np.float64]:
    """Return the negative logarithm of the true class's probability of each photo, float64 [N].

    Args:
        logits: [N, classes].
        targets: int [N]: the true classes.
        temperature: Divides the logits.
    """
    from scipy.special import log_softmax

    scaled = logits.astype(np.float64) / temperature
    return 0.0 - log_softmax(scaled, axis=1)[np.arange(len(targets)), targets]  # never -0.0


def log_loss(logits: NDArray[np.floating], targets: NDArray[np.int_], temperature: float = 1.0) -> float:
    """Return the mean of `log_losses`."""
    return float(log_losses(logits, targets, temperature).mean())


def is_lower(losses: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Return whether losses float64 [N] are lower than others, of the same photos, by more than chance explains.

    The mean difference is compared with its standard error, at a one-sided level of 5%.
    """
    gains = others - losses
    return bool(gains.mean() > _NORMAL_QUANTILE * gains.std() / np.sqrt(len(gains)))


def fit_temperature(logits: NDArray[np.floating], targets: NDArray[np.int_]) -> float:
    """Return the temperature of the smallest log loss, from 0.05 to 20.

    Temperature scaling: Guo et al., 2017, "On Calibration of Modern Neural Networks".

    Args:
        logits: [N, classes], of photos that the classifier was not fitted to.
        targets: int [N]: the true classes.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda exponent: log_loss(logits, targets, np.exp(exponent)), bounds=np.log(_TEMPERATURES), method="bounded"
    )
    return float(np.exp(found.x))


def calibrate(logits: NDArray[np.floating], targets: NDArray[np.int_]) -> float:
    """Return the temperature that `fit_temperature` finds, or 1 if it does not lower the log loss beyond noise."""
    temperature = fit_temperature(logits, targets)
    is_better = is_lower(log_losses(logits, targets, temperature), log_losses(logits, targets))
    return temperature if is_better else 1.0


@dataclass(frozen=True)
class TopLabels:
    """The likeliest label of each of some photos.

    Attributes:
        targets: int [N]: the true classes.
        labels: int [N]: the likeliest classes.
        probabilities: float32 [N]: their probabilities.
    """

    targets: NDArray[np.int_]
    labels: NDArray[np.int_]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> TopLabels:
        """Return those of the photos that a mask chooses."""
        return TopLabels(self.targets[chosen], self.labels[chosen], self.probabilities[chosen])

    def replaced(self, chosen: NDArray[np.bool_], others: TopLabels) -> TopLabels:
        """Return the same photos with other labels for those that a mask chooses."""
        labels, probabilities = self.labels.copy(), self.probabilities.copy()
        labels[chosen], probabilities[chosen] = others.labels, others.probabilities
        return TopLabels(self.targets, labels, probabilities)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Which labels are correct, bool [N]."""
        return self.labels == self.targets


def calibration_curve(top: TopLabels) -> list[dict[str, Any]]:
    """Return the accuracy of labels by their probability.

    Returns:
        For each tenth of [0, 1] that holds probabilities of predicted labels: `photos`, their mean `probability`,
        and their `accuracy`.
    """
    bins = np.minimum((top.probabilities * _BINS).astype(int), _BINS - 1)
    return [
        {
            "photos": int((bins == number).sum()),
            "probability": float(top.probabilities[bins == number].mean()),
            "accuracy": float(top.correct[bins == number].mean()),
        }
        for number in np.unique(bins)
    ]


def expected_calibration_error(curve: list[dict[str, Any]]) -> float:
    """Return the mean over photos of |accuracy - probability| of a curve's points, 0 to 1."""
    photos = sum(point["photos"] for point in curve)
    return sum(point["photos"] * abs(point["accuracy"] - point["probability"]) for point in curve) / photos


def at_threshold(top: TopLabels, threshold: float) -> dict[str, Any]:
    """Return the `precision` of labels at or above a threshold (None without any), and their share, `coverage`."""
    is_known = top.probabilities >= threshold
    return {
        "precision": float(top.correct[is_known].mean()) if is_known.any() else None,
        "coverage": float(is_known.mean()) if len(top) else 0.0,
    }
