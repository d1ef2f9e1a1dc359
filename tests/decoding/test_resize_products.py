"""The products that resize large squares. Other tests compare whole photos with the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowers_batch.decoding.resize_matrix import SquareSide, resize_matrix
from flowers_batch.decoding.resize_products import _row_weights, resize_columns, resize_rows

SIDES = [SquareSide(481), SquareSide(1000), SquareSide(1999), SquareSide(1345, 2, 1), SquareSide(2700, 4, 3)]


def draw_photo(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def multiply(matrix: np.ndarray, square: np.ndarray) -> np.ndarray:
    return np.einsum("tr,rcn->tcn", matrix, square.astype(np.float64))


@pytest.mark.parametrize("side", SIDES)
def test_rows_of_a_part_of_a_photo_are_multiplied_with_the_matrix(side):
    square = draw_photo(side.decoded + 7, 40)[4:-3, 5:-6]
    square.flags.writeable = False  # as Pillow's are
    resized = resize_rows(square, side)
    assert np.abs(resized.reshape(224, 29, 3) - multiply(resize_matrix(side), square)).max() < 1e-4


@pytest.mark.parametrize("side", SIDES)
def test_columns_are_multiplied_with_the_matrix(side):
    square, out = draw_photo(224, side.decoded), np.empty((224, 224, 3), np.float32)
    resize_columns(square.reshape(224, -1).astype(np.float32), side, out)
    expected = multiply(resize_matrix(side), square.swapaxes(0, 1)).swapaxes(0, 1)
    assert np.abs(out - expected).max() < 1e-4


@pytest.mark.parametrize("side", SIDES)
def test_no_row_is_read_before_it_is_announced(side):
    photo = draw_photo(side.decoded, 30)
    late = np.zeros_like(photo)

    def arrive(stop: int) -> None:
        late[:stop] = photo[:stop]

    assert np.array_equal(resize_rows(late, side, arrive), resize_rows(photo, side))


def test_rows_of_another_number_are_refused():
    with pytest.raises(ValueError, match="800 rows, but its side has 801"):
        resize_rows(draw_photo(800, 30), SquareSide(801))


@settings(max_examples=60, deadline=None)
@given(st.integers(481, 8000), st.sampled_from([1, 2, 4, 8]), st.integers(0, 7))
def test_weights_are_those_of_the_matrix_and_of_no_row_outside(length, scale, lead):
    side = SquareSide(length * scale, scale, lead % scale)
    starts, weights = _row_weights(side)
    assert starts.min() >= 0 and starts.max() + weights.shape[1] <= side.decoded
    placed = np.zeros((224, side.decoded), np.float32)
    np.put_along_axis(placed, starts[:, None] + np.arange(weights.shape[1]), weights, 1)
    assert np.array_equal(placed, resize_matrix(side).astype(np.float32))
