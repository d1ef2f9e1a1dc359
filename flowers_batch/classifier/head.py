"""The classifier on top of the codes, as plain arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]  # kernel [in, out] and bias [out]


@dataclass(frozen=True)
class Head:
    """Standardisation, then fully connected layers with a ReLU between them, then a softmax.

    Attributes:
        classes: Names, in the order of the probabilities.
        mean, scale: float32 [D]: subtracted from a code, and its divisor after that.
        layers: Kernel float32 [in, out] and bias float32 [out] of each.
        temperature: Divides the logits; 1 leaves them unchanged.
        threshold: The probability below which a label counts as unknown; None: no label does.
    """

    classes: tuple[str, ...]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: tuple[Layer, ...]
    temperature: float = 1.0
    threshold: float | None = None

    def logits(self, codes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return logits float32 [N, classes], before the temperature, of codes [N, D]."""
        return apply_layers((codes.astype(np.float32) - self.mean) / self.scale, self.layers)

    def probabilities(self, codes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return probabilities float32 [N, classes] of codes [N, D]."""
        return self.probabilities_of(self.logits(codes))

    def probabilities_of(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities float32 [N, classes] of logits [N, classes]."""
        from scipy.special import softmax

        return softmax(logits / np.float32(self.temperature), axis=1)

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


def head_from_arrays(
    arrays: Mapping[str, NDArray[np.float32]], classes: tuple[str, ...], temperature: float, threshold: float | None
) -> Head:
    """Return the head whose `arrays` these are.

    Raises:
        KeyError, ValueError: They are not the arrays of a head, or do not fit each other or the classes.
    """
    count = (len(arrays) - 2) // 2
    layers = tuple((arrays[f"layer{number}.kernel"], arrays[f"layer{number}.bias"]) for number in range(count))
    head = Head(classes, arrays["mean"], arrays["scale"], layers, temperature, threshold)
    if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("an array has other values than finite float32")
    width = len(head.mean) if head.mean.ndim == 1 else -1
    fits = head.scale.shape == (width,) and bool((head.scale > 0).all())
    for kernel, bias in layers:
        fits = fits and kernel.ndim == 2 and kernel.shape == (width, len(bias)) and bias.ndim == 1
        width = len(bias) if bias.ndim else -1
    if not fits or not layers or len(arrays) != 2 * count + 2 or width != len(classes):
        raise ValueError("the arrays' shapes do not fit each other or the classes")
    if len(set(classes)) < len(classes) or not temperature > 0:
        raise ValueError("a class is named twice, or the temperature is not above 0")
    return head


def apply_layers(values: NDArray[np.float32], layers: Sequence[Layer]) -> NDArray[np.float32]:
    """Return the outputs float32 [N, classes] of layers, with a ReLU between them, of standardised codes [N, D]."""
    for number, (kernel, bias) in enumerate(layers):
        values = (np.maximum(values, 0) if number else values) @ kernel + bias
    return values
