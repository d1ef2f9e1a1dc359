"""Keras layers that vary photos at random while a network is trained on them."""

from __future__ import annotations

from collections.abc import Collection
from math import log
from typing import Any

import keras
from keras import ops

_AREAS = (0.35, 1.0)  # shares of a photo that are cut out
_PROPORTIONS = (3 / 4, 4 / 3)  # of the cut's width to its height, as in section 5 of arXiv 1409.4842
_LIGHT = 0.05  # that is added or taken away, as a share of white
_CONTRAST = 0.2  # by which it is raised or lowered, as a share of itself
_SATURATION = (0.44, 0.56)  # Keras multiplies by f / (1 - f): 0.8 to 1.3
_HUE = 0.02  # as a share of the circle of colours


class RandomResizedCrop(keras.layers.Layer):
    """Cuts a part out of each photo, and makes it as large as the photo was.

    Interpolation is linear, by a product with a matrix along each side: exact, and faster than to gather pixels.

    Args:
        seed: Decides on the parts.
    """

    def __init__(self, seed: int):
        super().__init__(dtype="float32")
        self._seeds = keras.random.SeedGenerator(seed)

    def call(self, photos: Any, training: bool = False) -> Any:
        """Varies photos if they are trained on."""
        if not training:
            return photos

        def drawn(low: float, high: float) -> Any:
            return keras.random.uniform((ops.shape(photos)[0],), low, high, seed=self._seeds)

        area, proportion = drawn(*_AREAS), ops.exp(drawn(*map(log, _PROPORTIONS)))
        height, width = (ops.minimum(1.0, ops.sqrt(size)) for size in (area / proportion, area * proportion))
        rows = _interpolation(height, drawn(0, 1), photos.shape[1])
        columns = _interpolation(width, drawn(0, 1), photos.shape[2])
        return ops.einsum("njt,nitc->nijc", columns, ops.einsum("nis,nstc->nitc", rows, photos))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The same."""
        return shape


def _interpolation(length: Any, place: Any, side: int) -> Any:
    """Matrices [N, side, side] that enlarge a part of each of N lines to its whole length.

    Args:
        length: [N], in (0, 1]: how much of the line the part is.
        place: [N], in [0, 1]: where it lies, from the very beginning to the very end.
        side: Pixels of a line.
    """
    pixels = ops.arange(side, dtype="float32")
    sources = (pixels + 0.5)[None] * length[:, None] + (place * (1 - length))[:, None] * side - 0.5
    sources = ops.clip(sources, 0.0, side - 1.0)
    return ops.relu(1 - ops.abs(sources[:, :, None] - pixels[None, None]))


def variations(names: Collection[str], seed: int) -> list[keras.layers.Layer]:
    """The layers that vary what is named, of `config.AUGMENT`, in the order in which they are applied."""
    made = {
        "crop": lambda seed: RandomResizedCrop(seed),
        "flip": lambda seed: keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32"),
        "colour": lambda seed: keras.layers.RandomColorJitter(
            (0, 255),
            brightness_factor=_LIGHT,
            contrast_factor=_CONTRAST,
            saturation_factor=_SATURATION,
            hue_factor=_HUE,
            seed=seed,
            dtype="float32",
        ),
    }
    return [make(seed + number) for number, (name, make) in enumerate(made.items()) if name in names]
