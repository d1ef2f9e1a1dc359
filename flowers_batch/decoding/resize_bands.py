"""Products with the matrices that resize a side of a photo to 224 pixels, in blocks that stay in the cache.

The reference's resizing is linear and separable: one matrix for each axis. Few of its numbers are not zero, so that it
is cut into bands, and only those pixels are computed that the interpolation needs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding.pixels import SIDE

_SIGMAS = 4  # where scikit-image cuts its Gaussian
# Of a product: more rows of the matrix mean more zeros, fewer mean more calls. Up to a million multiplications BLAS
# copies no operand. The fastest of those that were tried, on sides of 700 to 3,072 pixels.
_TARGETS, _TARGETS_PER_BLOCK, _MULTIPLICATIONS = 4, 16, 900_000
_CACHED_SIDES = 32  # at most a megabyte each


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


def resize_rows(
    square: NDArray[np.uint8], side: SquareSide, before: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """Multiply the matrix of a side with a square's rows.

    Args:
        square: uint8 [rows, columns, 3].
        side: The vertical one.
        before: Called before rows are read, with the number of the row where these end.

    Returns:
        [224, columns * 3].
    """
    pixels = square.reshape(len(square), -1)
    resized = np.empty((SIDE, pixels.shape[1]), np.float32)
    blocks = _row_bands(side)
    longest = max(source.stop - source.start for source, _ in blocks)
    width = _MULTIPLICATIONS // max(weights.size for _, bands in blocks for _, _, weights in bands)
    floats = np.empty((longest, min(width, pixels.shape[1])), np.float32)  # of one block after the other
    for source, bands in blocks:
        if before:
            before(source.stop)
        for first in range(0, pixels.shape[1], width):
            columns = slice(first, min(first + width, pixels.shape[1]))
            block = floats[: source.stop - source.start, : columns.stop - first]
            block[:] = pixels[source, columns]
            for target, rows, weights in bands:
                np.matmul(weights, block[rows], out=resized[target, columns])
    return resized


def resize_columns(rows: NDArray[np.float32], side: SquareSide, out: NDArray[np.float32]) -> None:
    """Multiply rows with the matrix of a side.

    Args:
        rows: [224, columns * 3], as `resize_rows` returns them.
        side: The horizontal one.
        out: Gets the product: [224, 224, 3].
    """
    pixels = out.reshape(SIDE, SIDE * 3)
    for target, source, weights in _column_bands(side):
        np.matmul(rows[:, source], weights, out=pixels[:, target])


@lru_cache(_CACHED_SIDES)
def _row_bands(side: SquareSide) -> list[tuple[slice, list[tuple[slice, slice, NDArray[np.float32]]]]]:
    """Return blocks of rows, and for each the targets, the rows within the block, and the matrix of its products."""
    bands = _bands(side)
    blocks = []
    for first in range(0, len(bands), _TARGETS_PER_BLOCK // _TARGETS):
        block = bands[first : first + _TARGETS_PER_BLOCK // _TARGETS]
        start, stop = block[0][1].start, block[-1][1].stop
        products = [(target, slice(rows.start - start, rows.stop - start), weights) for target, rows, weights in block]
        blocks.append((slice(start, stop), products))
    return blocks


@lru_cache(_CACHED_SIDES)
def _column_bands(side: SquareSide) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Return targets, columns, and matrices for rows whose columns are of three channels each: two thirds are zero."""
    return [
        (
            slice(3 * target.start, 3 * target.stop),
            slice(3 * columns.start, 3 * columns.stop),
            np.ascontiguousarray(np.kron(weights, np.eye(3, dtype=np.float32)).T),
        )
        for target, columns, weights in _bands(side)
    ]


def _bands(side: SquareSide) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Return the parts of a matrix that are not zero: rows, columns, numbers."""
    matrix = _matrix(side) if side.scale == 1 else _scaled_matrix(side)
    used = matrix != 0
    bands = []
    for first in range(0, SIDE, _TARGETS):
        rows = slice(first, first + _TARGETS)
        columns = np.flatnonzero(used[rows].any(0))
        source = slice(int(columns[0]), int(columns[-1]) + 1)
        bands.append((rows, source, np.ascontiguousarray(matrix[rows, source], np.float32)))
    return bands


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


def _matrix(side: SquareSide) -> NDArray[np.float64]:
    """Return the matrix [224, length] of scikit-image: the Gaussian, mirrored at the border, then interpolation."""
    length, weights, centres = side.length, gaussian(side.length), _centres(side.length)
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
