"""The matrix that resizes a side of a photo to 224 pixels as scikit-image does, which is linear and separable."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding.pixels import SIDE

_SIGMAS = 4  # where scikit-image cuts its Gaussian


class SquareSide(NamedTuple):
    """Where a side of the centre square is in a photo that was decoded to 1/`scale` of its size.

    Attributes:
        length: In pixels of the full size.
        scale: Each decoded pixel is the mean of so many; 1 in full size.
        lead: Pixels of the full size that the first decoded pixel has in front of the square, 0 to `scale` - 1.
    """

    length: int
    scale: int = 1
    lead: int = 0

    @property
    def decoded(self) -> int:
        """The number of decoded pixels that the side takes, also with a part of theirs."""
        return -(-(self.lead + self.length) // self.scale)


def resize_matrix(side: SquareSide) -> NDArray[np.float64]:
    """Return the weights of a side's decoded pixels in the 224 resized ones: [224, decoded]; each row's sum is 1."""
    return _matrix(side.length) if side.scale == 1 else _scaled_matrix(side)


def gaussian(length: int) -> NDArray[Any]:
    """Return the weights of scikit-image's Gaussian against aliasing, for a side that becomes 224."""
    sigma = _sigma(length)
    radius = int(_SIGMAS * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (sigma or 1)) ** 2)
    return weights / weights.sum()


def _sigma(length: int) -> float:
    return max(0.0, (length / SIDE - 1) / 2)


def _centres(length: int) -> NDArray[Any]:
    """Return where the centres of the resized pixels are, in pixels of a side."""
    return (np.arange(SIDE) + 0.5) * (length / SIDE) - 0.5


def _matrix(length: int) -> NDArray[np.float64]:
    """Return the matrix [224, length] of scikit-image: the Gaussian, mirrored at the border, then interpolation."""
    weights, centres = gaussian(length), _centres(length)
    offsets = np.arange(len(weights)) - len(weights) // 2
    below = np.floor(centres).astype(np.int64)
    matrix = np.zeros((SIDE, length))
    for tap, weight in ((below, below + 1 - centres), (below + 1, centres - below)):
        columns = _mirror(tap[:, None] + offsets, length)
        np.add.at(matrix, (np.arange(SIDE)[:, None], columns), weight[:, None] * weights)
    return matrix


def _mirror(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Fold an index back into 0..length-1, without repeating the border: 2 1 | 0 1 2 3 | 2 1."""
    index = np.abs(index) % (2 * length - 2)
    return np.minimum(index, 2 * length - 2 - index)


def _scaled_matrix(side: SquareSide) -> NDArray[np.float64]:
    """Return a matrix [224, decoded] that resizes means of `scale` pixels nearly as scikit-image does the pixels.

    Blurs add their variances. scikit-image's are that of its Gaussian and t(1-t) of its interpolation, where t is the
    distance to the next lower pixel. A mean of n pixels has (n^2-1)/12. The Gaussian of what remains is taken at the
    centres of the decoded pixels, so that interpolation between these adds nothing.
    """
    centres = _centres(side.length)[:, None]
    between = centres % 1
    variance = _sigma(side.length) ** 2 + between * (1 - between) - (side.scale**2 - 1) / 12
    decoded = np.arange(side.decoded) * side.scale + ((side.scale - 1) / 2 - side.lead)
    last = side.length - 1
    is_mirrored = (decoded > 0) & (decoded < last)

    def weights(positions: NDArray[Any]) -> NDArray[Any]:
        squares = (positions - centres) ** 2 / variance
        return np.where(squares <= _SIGMAS**2, np.exp(-0.5 * squares), 0)

    matrix = weights(decoded) + (weights(-decoded) + weights(2 * last - decoded)) * is_mirrored
    return matrix / matrix.sum(1, keepdims=True)
