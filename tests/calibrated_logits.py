"""Logits of a classifier whose calibration is known."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax


def draw_logits(count: int, heat: float = 1.0, seed: int = 0):
    """Draw logits of four classes, and targets from their softmax; return targets, and the logits times `heat`."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (count, 4))
    shares = softmax(logits, 1)
    targets = (random.random((count, 1)) > np.cumsum(shares, 1)).sum(1)
    return targets, (logits * heat).astype(np.float32)
