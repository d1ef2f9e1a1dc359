"""The classifier on top of the codes, as plain arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Head:
    """Standardisation, then fully connected layers with a ReLU between them, then a softmax.

    Attributes:
        classes: Names, in the order of the probabilities.
        mean, scale: float32 [D]: what is taken from a code, and what it is then divided by.
        layers: Kernel float32 [in, out] and bias float32 [out] of each.
        temperature: What logits are divided by; 1 leaves them.
        threshold: The probability below which a label is said to be unknown; None says none is.
    """

    classes: tuple[str, ...]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: tuple[Layer, ...]
    temperature: float = 1.0
    threshold: float | None = None

    def logits(self, codes: NDArray[np.floating]) -> NDArray[np.float32]:
        """What the temperature divides, float32 [N, classes], of codes [N, D]."""
        return logits((codes.astype(np.float32) - self.mean) / self.scale, self.layers)

    def probabilities(self, codes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Probabilities float32 [N, classes] of codes [N, D]."""
        return self.probabilities_of(self.logits(codes))

    def probabilities_of(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities float32 [N, classes] of logits [N, classes]."""
        values = logits / np.float32(self.temperature)
        values = np.exp(values - values.max(1, keepdims=True))
        return values / values.sum(1, keepdims=True)

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """All arrays by name."""
        named = {"mean": self.mean, "scale": self.scale}
        for number, (kernel, bias) in enumerate(self.layers):
            named |= {f"layer{number}.kernel": kernel, f"layer{number}.bias": bias}
        return named

    @property
    def identity(self) -> str:
        """SHA-256, in hexadecimal, of everything that a label depends on."""
        digest = hashlib.sha256(json.dumps([self.classes, self.temperature, self.threshold]).encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def logits(values: NDArray[np.float32], layers: Sequence[Layer]) -> NDArray[np.float32]:
    """What layers make of standardised codes [N, D], with a ReLU between them: float32 [N, classes]."""
    for number, (kernel, bias) in enumerate(layers):
        values = (np.maximum(values, 0) if number else values) @ kernel + bias
    return values
