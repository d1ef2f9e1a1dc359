"""Each normalisation has one definition, which NumPy and Keras compute alike, also on codes of zeros."""

from __future__ import annotations

import numpy as np
import pytest

from flowers_batch.classifier.labelled_codes import labelled_codes_of
from flowers_batch.classifier.normalization import NONE, NORMALIZATIONS, STANDARDIZED, Normalization, fit_normalization


def draw_codes(count: int = 40, width: int = 12) -> np.ndarray:
    """Draw codes as after a ReLU, some of whose values, and the first of which, are 0."""
    codes = np.random.default_rng(3).normal(0, 9, (count, width)).clip(0, None)
    codes[0] = 0
    return codes.astype(np.float16)


def fitted(name: str, codes: np.ndarray) -> Normalization:
    return fit_normalization(name, labelled_codes_of(codes, np.zeros(len(codes), int)))


def expected(name: str, codes: np.ndarray) -> np.ndarray:
    """Return what the normalisation's name says, but for its floor and its offset."""
    codes = codes.astype(np.float64)
    if name == STANDARDIZED:
        return (codes - codes.mean(0)) / codes.std(0)
    values = np.sqrt(codes) if name == "sqrt_l2" else codes
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return values if name == NONE else np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalized_codes_are_what_the_name_says(name):
    codes = draw_codes()
    found = fitted(name, codes)(codes)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(name, codes), atol=2e-3)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_keras_normalizes_as_numpy_does(name):
    import keras

    codes = draw_codes()
    normalization = fitted(name, codes)
    found = normalization.apply(keras.ops.convert_to_tensor(codes.astype(np.float32)), keras.ops)
    np.testing.assert_allclose(np.asarray(found), normalization(codes), atol=1e-5)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_gradients_at_zeros_are_finite(name):
    """The root's own gradient at 0 is infinite, and so is that of a norm."""
    import tensorflow as tf
    from keras import ops

    codes = draw_codes().astype(np.float32)
    codes[1] = 1e-12
    codes[2, 0] = -1e-12
    values = tf.Variable(codes)
    normalization = fitted(name, codes)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(normalization.apply(values, ops) * np.linspace(-1, 1, codes.shape[1], dtype=np.float32))
    gradient = tape.gradient(total, values).numpy()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[3:]).max() < 60


def test_sign_of_values_survives_the_square_root():
    codes = np.array([[9.0, -4.0, 0.0]], np.float32)
    np.testing.assert_allclose(Normalization("sqrt_l2")(codes), np.array([[3, -2, 0]]) / 13**0.5, atol=3e-3)
