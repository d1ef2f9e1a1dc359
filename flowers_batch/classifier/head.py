"""The classifier on top of the codes, as plain arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.normalization import STANDARDIZED, Normalization

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]  # kernel [in, out] and bias [out]


@dataclass(frozen=True)
class Head:
    """A normalisation of codes, then fully connected layers with a ReLU between them, then a softmax.

    Attributes:
        classes: Names, in the order of the probabilities.
        normalization: Of the codes.
        layers: Kernel float32 [in, out] and bias float32 [out] of each.
        temperature: Divides the logits; 1 leaves them unchanged.
        threshold: The probability below which a label counts as unknown; None: no label does.
    """

    classes: tuple[str, ...]
    normalization: Normalization
    layers: tuple[Layer, ...]
    temperature: float = 1.0
    threshold: float | None = None

    def logits(self, codes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return logits float32 [N, classes], before the temperature, of codes [N, D]."""
        return apply_layers(self.normalization(codes), self.layers)

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
        named = self.normalization.arrays
        for number, (kernel, bias) in enumerate(self.layers):
            named |= {f"layer{number}.kernel": kernel, f"layer{number}.bias": bias}
        return named

    @property
    def identity(self) -> str:
        """SHA-256, in hexadecimal, of everything that a label depends on."""
        described = [self.classes, self.temperature, self.threshold]
        if self.normalization.name != STANDARDIZED:  # the only one of version 0.1, whose heads keep their identity
            described.append(self.normalization.name)
        digest = hashlib.sha256(json.dumps(described).encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def head_from_arrays(
    arrays: Mapping[str, NDArray[np.float32]],
    classes: tuple[str, ...],
    normalization: str,
    temperature: float,
    threshold: float | None,
) -> Head:
    """Return the head whose `arrays` these are.

    Args:
        arrays: All arrays by name.
        classes, temperature, threshold: As in `Head`.
        normalization: One of `NORMALIZATIONS`.

    Raises:
        KeyError, ValueError: They are not the arrays of a head, or do not fit each other or the classes.
    """
    rest = dict(arrays)
    if normalization == STANDARDIZED:
        normalizes = Normalization(normalization, rest.pop("mean"), rest.pop("scale"))
    else:
        normalizes = Normalization(normalization)
    layers = tuple((rest[f"layer{number}.kernel"], rest[f"layer{number}.bias"]) for number in range(len(rest) // 2))
    if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("an array has other values than finite float32")
    if not layers or len(rest) != 2 * len(layers) or not _fit_each_other(normalizes, layers, len(classes)):
        raise ValueError("the arrays' shapes do not fit each other or the classes")
    if len(set(classes)) < len(classes) or not temperature > 0:
        raise ValueError("a class is named twice, or the temperature is not above 0")
    return Head(classes, normalizes, layers, temperature, threshold)


def _fit_each_other(normalization: Normalization, layers: Sequence[Layer], classes: int) -> bool:
    """Return whether the shapes of arrays do; scales must also be above 0."""
    width = len(layers[0][0]) if layers[0][0].ndim else -1
    fits = all(array.shape == (width,) for array in normalization.arrays.values())
    fits = fits and (normalization.scale is None or bool((normalization.scale > 0).all()))
    for kernel, bias in layers:
        fits = fits and bias.ndim == 1 and kernel.shape == (width, len(bias))
        width = len(bias) if bias.ndim else -1
    return fits and width == classes


def apply_layers(values: NDArray[np.float32], layers: Sequence[Layer]) -> NDArray[np.float32]:
    """Return the outputs float32 [N, classes] of layers, with a ReLU between them, of normalised codes [N, D]."""
    for number, (kernel, bias) in enumerate(layers):
        values = (np.maximum(values, 0) if number else values) @ kernel + bias
    return values
