"""Products of a square's pixels with the matrices that resize its sides; what is zero in these is left out."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numba import float32, int64, njit, typeof
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from flowers_batch.decoding.pixels import SIDE
from flowers_batch.decoding.resize_matrix import SquareSide, resize_matrix

_TARGETS_PER_CALL = 8
_TARGETS_PER_BAND = 4  # more mean more zeros, fewer more calls
_CACHED_SIDES = 32  # at most a megabyte each
_FLOATS, _BYTES = float32[:, ::1], typeof(np.frombuffer(b" ", np.uint8))  # the latter read-only


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

    Raises:
        ValueError: The square has another number of rows: the compiled function would read other memory.
    """
    if len(square) != side.decoded:
        raise ValueError(f"The square has {len(square)} rows, but its side has {side.decoded}.")
    pixels = square.reshape(len(square), -1)
    stride, width = pixels.strides[0], pixels.shape[1]
    memory = as_strided(pixels, ((len(pixels) - 1) * stride + width,), (1,), writeable=False)
    starts, weights = _row_weights(side)
    resized = np.empty((SIDE, width), np.float32)
    for first in range(0, SIDE, _TARGETS_PER_CALL):
        targets = slice(first, first + _TARGETS_PER_CALL)
        if before:
            before(int(starts[targets][-1]) + weights.shape[1])
        _multiply_rows(weights[targets], memory, starts[targets] * stride, stride, resized[targets])
    return resized


@njit((_FLOATS, _BYTES, int64[::1], int64, _FLOATS), fastmath={"contract"}, nogil=True)
def _multiply_rows(
    weights: NDArray[np.float32],
    memory: NDArray[np.uint8],
    starts: NDArray[np.int64],
    stride: int,
    out: NDArray[np.float32],
) -> None:
    """Sum up weighted rows. Compiled, so that bytes become floats in registers only.

    Args:
        weights: [targets, rows]; the number of rows is divisible by 4.
        memory: The square's bytes, from its first to its last.
        starts: [targets]: where the first row of each is in `memory`.
        stride: The bytes from a row's first to the next one's.
        out: [targets, values]: gets the sums.
    """
    for target in range(len(out)):
        sums = out[target]
        sums[:] = 0
        for first in range(0, weights.shape[1], 4):  # four at once: a sum is loaded and stored less often
            row = starts[target] + first * stride
            a, b, c, d = memory[row:], memory[row + stride :], memory[row + 2 * stride :], memory[row + 3 * stride :]
            weight = weights[target, first : first + 4]
            for x in range(len(sums)):
                sums[x] += weight[0] * a[x] + weight[1] * b[x] + weight[2] * c[x] + weight[3] * d[x]


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
def _row_weights(side: SquareSide) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return for each target the first of the rows that it takes, [224], and their weights, [224, rows]."""
    matrix = resize_matrix(side)
    used = matrix != 0
    starts, stops = used.argmax(1), matrix.shape[1] - used[:, ::-1].argmax(1)
    count = -(-int((stops - starts).max()) // 4) * 4
    starts = np.minimum(starts, matrix.shape[1] - count)
    return starts, np.take_along_axis(matrix, starts[:, None] + np.arange(count), 1).astype(np.float32)


@lru_cache(_CACHED_SIDES)
def _column_bands(side: SquareSide) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Return targets, columns, and matrices for rows whose columns are of three channels each: two thirds are zero."""
    matrix = resize_matrix(side).astype(np.float32)
    bands = []
    for first in range(0, SIDE, _TARGETS_PER_BAND):
        targets = matrix[first : first + _TARGETS_PER_BAND]
        columns = np.flatnonzero(targets.any(0))
        start, stop = int(columns[0]), int(columns[-1]) + 1
        weights = np.kron(targets[:, start:stop].T, np.eye(3, dtype=np.float32))
        bands.append((slice(3 * first, 3 * (first + len(targets))), slice(3 * start, 3 * stop), weights))
    return bands
