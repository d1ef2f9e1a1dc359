"""Network and head as one Keras model, saved as `.keras` or as a SavedModel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowers_batch.classifier.head import Head, Layer
from flowers_batch.classifier.normalization import STANDARDIZED
from flowers_batch.exporting.photos import read_photo
from tensorflow_vgg.images import SIDE

if TYPE_CHECKING:
    import keras


def folded_layers(head: Head) -> list[Layer]:
    """Return the head's layers with temperature and standardisation folded in: kernel and bias of each, float32."""
    layers = [(kernel.astype(np.float64), bias.astype(np.float64)) for kernel, bias in head.layers]
    mean, scale = head.normalization.mean, head.normalization.scale
    if mean is not None and scale is not None:
        kernel, bias = layers[0]
        layers[0] = kernel / scale[:, None], bias - (mean / scale) @ kernel
    layers[-1] = layers[-1][0] / head.temperature, layers[-1][1] / head.temperature
    return [(kernel.astype(np.float32), bias.astype(np.float32)) for kernel, bias in layers]


def _labelling_model(network: keras.Model, head: Head) -> keras.Model:
    """Return a model from pixels float32 [N, 224, 224, 3] to all outputs of an exported model."""
    import keras

    values = network.output
    if head.normalization.name != STANDARDIZED:  # which is folded into the layers
        values = head.normalization.apply(values, keras.ops)
    layers = folded_layers(head)
    for number, (kernel, bias) in enumerate(layers, 1):
        last = number == len(layers)
        dense = keras.layers.Dense(len(bias), "softmax" if last else "relu", name=f"head{number}")
        values = dense(values)
        dense.set_weights([kernel, bias])
    probability = keras.ops.max(values, axis=-1)
    names = keras.layers.StringLookup(vocabulary=list(head.classes), num_oov_indices=0, invert=True, name="classes")
    return keras.Model(
        network.input,
        {
            "label": names(keras.ops.argmax(values, axis=-1)),
            "probability": probability,
            "probabilities": values,
            "is_unknown": keras.ops.less(probability, head.threshold or 0.0),
        },
        name="labelling",
    )


def write_keras(network: keras.Model, head: Head, scratch: Path) -> None:
    """Write a file, whose name must end in `.keras`."""
    import keras

    for layer in network.layers:
        if hasattr(layer, "kernel_initializer"):  # holds the weights, and would be written along with them
            layer.kernel_initializer = layer.bias_initializer = keras.initializers.Zeros()
    _labelling_model(network, head).save(scratch)


def write_saved_model(network: keras.Model, head: Head, scratch: Path) -> None:
    """Write a SavedModel folder."""
    import keras
    import tensorflow as tf

    labelling = _labelling_model(network, head)

    def label(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return labelling(tf.map_fn(read_pixels, images, fn_output_signature=tf.TensorSpec((SIDE, SIDE, 3), tf.float32)))

    archive = keras.export.ExportArchive()
    archive.track(labelling)
    archive.add_endpoint("serving_default", label, [tf.TensorSpec((None,), tf.string, name="images")])
    archive.write_out(scratch, verbose=False)


def read_pixels(data: Any) -> Any:
    """Return the pixels float32 [224, 224, 3] of an image file's bytes, upright, computed by TensorFlow operations.

    The resize of `tensorflow_vgg.images.centre_square` is linear and separable: a product with one matrix along each
    side. Here the picture is mirrored at its borders first, so that each row of the matrix is a sampled Gaussian.
    """
    import tensorflow as tf

    photo = read_photo(data)
    shape = tf.shape(photo)[:2]
    side = tf.reduce_min(shape)
    top, left = tf.unstack((shape - side) // 2)
    square = tf.cast(photo[top : top + side, left : left + side], tf.float32)
    factor = tf.cast(side, tf.float64) / SIDE
    sigma = tf.maximum((factor - 1) / 2, 0.0)
    radius = tf.floor(4 * sigma + 0.5)
    width = tf.where(sigma > 0, sigma, tf.ones_like(sigma))

    def gaussian(away: tf.Tensor) -> tf.Tensor:
        return tf.where(tf.abs(away) <= radius, tf.exp(-0.5 * (away / width) ** 2), tf.zeros_like(away))

    border = radius + 1
    centres = (tf.range(SIDE, dtype=tf.float64) + 0.5) * factor - 0.5
    below = tf.floor(centres)[:, None]
    share = centres[:, None] - below
    away = tf.range(-border, tf.cast(side, tf.float64) + border)[None] - below
    total = tf.reduce_sum(gaussian(tf.range(-radius, radius + 1)))
    matrix = tf.cast(((1 - share) * gaussian(away) + share * gaussian(away - 1)) / total, tf.float32)
    pad = tf.cast(border, tf.int32)
    mirrored = tf.pad(square, [[pad, pad], [pad, pad], [0, 0]], "REFLECT")
    resized = tf.einsum("is,jt,stc->ijc", matrix, matrix, mirrored, optimize="optimal")
    return tf.ensure_shape(tf.clip_by_value(resized, 0, 255), (SIDE, SIDE, 3))
