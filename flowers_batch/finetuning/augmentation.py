"""Random augmentation of photos during training, as Keras layers."""

from __future__ import annotations

from collections.abc import Collection
from math import log
from typing import Any

import keras
from keras import ops

_AREAS = (0.35, 1.0)  # of a crop, as a share of the photo
_ASPECT_RATIOS = (3 / 4, 4 / 3)  # of a crop, width to height: section 5 of arXiv 1409.4842
_BRIGHTNESS = 0.05  # added or subtracted at most, as a share of white
_CONTRAST = 0.2  # raised or lowered by at most this share
_SATURATION = (0.44, 0.56)  # Keras multiplies by f / (1 - f): 0.8 to 1.3
_HUE = 0.02  # turned by at most this share of the colour circle


class RandomResizedCrop(keras.layers.Layer):
    """Crops a random part of each photo, and resizes it to the photo's size.

    The interpolation is linear, by a product with a matrix along each side: exact, and faster than gathering pixels.

    Args:
        seed: Decides on the crops.
    """

    def __init__(self, seed: int):
        super().__init__(dtype="float32")
        self._seeds = keras.random.SeedGenerator(seed)

    def call(self, photos: Any, training: bool = False) -> Any:
        """Return cropped photos in training, else the photos."""
        if not training:
            return photos

        def draw(low: float, high: float) -> Any:
            return keras.random.uniform((ops.shape(photos)[0],), low, high, seed=self._seeds)

        area, aspect_ratio = draw(*_AREAS), ops.exp(draw(*map(log, _ASPECT_RATIOS)))
        height, width = (ops.minimum(1.0, ops.sqrt(size)) for size in (area / aspect_ratio, area * aspect_ratio))
        rows = _interpolation(height, draw(0, 1), photos.shape[1])
        columns = _interpolation(width, draw(0, 1), photos.shape[2])
        return ops.einsum("njt,nitc->nijc", columns, ops.einsum("nis,nstc->nitc", rows, photos))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the same shape."""
        return shape


def _interpolation(length: Any, position: Any, side: int) -> Any:
    """Return matrices [N, side, side] that enlarge a part of each of N lines to the full length.

    Args:
        length: [N], in (0, 1]: of the part, as a share of the line.
        position: [N], in [0, 1]: of the part, from the first possible one to the last.
        side: Pixels of a line.
    """
    pixels = ops.arange(side, dtype="float32")
    sources = (pixels + 0.5)[None] * length[:, None] + (position * (1 - length))[:, None] * side - 0.5
    sources = ops.clip(sources, 0.0, side - 1.0)
    return ops.relu(1 - ops.abs(sources[:, :, None] - pixels[None, None]))


def augmentation_layers(names: Collection[str], seed: int) -> list[keras.layers.Layer]:
    """Return the layers of some names of `config.AUGMENT`, in the order in which they are applied."""
    factories = {
        "crop": lambda seed: RandomResizedCrop(seed),
        "flip": lambda seed: keras.layers.RandomFlip("horizontal", seed=seed, dtype="float32"),
        "colour": lambda seed: keras.layers.RandomColorJitter(
            (0, 255),
            brightness_factor=_BRIGHTNESS,
            contrast_factor=_CONTRAST,
            saturation_factor=_SATURATION,
            hue_factor=_HUE,
            seed=seed,
            dtype="float32",
        ),
    }
    return [make(seed + number) for number, (name, make) in enumerate(factories.items()) if name in names]
