"""VGG16 and VGG19 as Keras models, built up to a named layer."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.images import MEAN_BGR, SIDE

if TYPE_CHECKING:
    import keras

# Convolutions in each of the five blocks: configurations D and E of table 1 in arXiv 1409.1556.
NETWORKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_FILTERS = (64, 128, 256, 512, 512)
CLASSES = 1000
FC_WIDTH = 4096


def layer_names(network: str) -> list[str]:
    """The layers of a network, from the image to the probabilities.

    Raises:
        ValueError: There is no such network.
    """
    if network not in NETWORKS:
        raise ValueError(f"The network must be one of {', '.join(NETWORKS)}. Received: {network}.")
    names = []
    for block, convolutions in enumerate(NETWORKS[network], 1):
        names += [f"conv{block}_{index}" for index in range(1, convolutions + 1)]
        names.append(f"pool{block}")
    return [*names, "fc6", "relu6", "fc7", "relu7", "fc8", "prob"]


def parameter_shapes(network: str, upto: str = "prob") -> dict[str, tuple[tuple[int, ...], tuple[int]]]:
    """The shapes of kernel and bias of each layer that has them, in the network's order.

    Kernels are [3, 3, in, out] for convolutions and [in, out] for fully connected layers; `fc6` takes `pool5`
    flattened with the channels last.

    Args:
        network: `vgg16` or `vgg19`.
        upto: The last layer that is used.

    Raises:
        ValueError: There is no such network or layer.
    """
    names = layer_names(network)
    if upto not in names:
        raise ValueError(f"{network} has no layer {upto}; it has {', '.join(names)}.")
    shapes: dict[str, tuple[tuple[int, ...], tuple[int]]] = {}
    channels = 3
    for name in names[: names.index(upto) + 1]:
        if name.startswith("conv"):
            filters = _FILTERS[int(name[4]) - 1]
            shapes[name] = ((3, 3, channels, filters), (filters,))
            channels = filters
        elif name.startswith("fc"):
            inputs = {"fc6": (SIDE // 32) ** 2 * channels}.get(name, FC_WIDTH)
            outputs = CLASSES if name == "fc8" else FC_WIDTH
            shapes[name] = ((inputs, outputs), (outputs,))
    return shapes


def build(
    network: str,
    layer: str,
    parameters: Iterable[tuple[str, NDArray[np.float32], NDArray[np.float32]]],
    precision: str = "float32",
) -> keras.Model:
    """Builds a network up to a layer.

    Args:
        network: `vgg16` or `vgg19`.
        layer: The layer whose values are the model's output; what comes after it is not built.
        parameters: Name, kernel and bias of each layer of `parameter_shapes(network, layer)`, in that order,
            as `weights.load` streams them.
        precision: `float32` or `bfloat16`: what the layers compute in. The output is float32 in both.

    Returns:
        A model from float32 [N, 224, 224, 3], RGB in [0, 255], to float32 [N, ...].

    Raises:
        ValueError: There is no such network or layer, or parameters are missing or have other shapes.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    shapes = parameter_shapes(network, layer)
    photos = keras.Input((SIDE, SIDE, 3), dtype="float32", name="rgb")
    values = keras.ops.flip(photos, axis=-1) - np.asarray(MEAN_BGR, np.float32)
    names = layer_names(network)
    for name in names[: names.index(layer) + 1]:
        # Kernels start as zeros: drawing 100 million random numbers to overwrite them takes seconds.
        common = {"name": name, "dtype": precision}
        if name.startswith("conv"):
            filters = shapes[name][1][0]
            make = keras.layers.Conv2D(
                filters, 3, padding="same", activation="relu", kernel_initializer="zeros", **common
            )
        elif name.startswith("pool"):
            make = keras.layers.MaxPooling2D(2, **common)
        elif name.startswith("fc"):
            if name == "fc6":
                values = keras.layers.Flatten(name="flatten", dtype=precision)(values)
            make = keras.layers.Dense(shapes[name][1][0], kernel_initializer="zeros", **common)
        else:
            make = keras.layers.Activation("softmax" if name == "prob" else "relu", **common)
        values = make(values)
    if precision != "float32":
        values = keras.layers.Activation("linear", dtype="float32", name="as_float32")(values)
    model = keras.Model(photos, values, name=network)
    # XLA is slower than oneDNN's kernels on CPUs, and compiles anew for each batch size.
    model.compile(jit_compile=False)
    _assign(model, shapes, parameters)
    return model


def _assign(
    model: keras.Model,
    shapes: dict[str, tuple[tuple[int, ...], tuple[int]]],
    parameters: Iterable[tuple[str, NDArray[np.float32], NDArray[np.float32]]],
) -> None:
    missing = dict(shapes)
    for name, kernel, bias in parameters:
        if (kernel.shape, bias.shape) != missing.pop(name, None):
            raise ValueError(
                f"Layer {name} of {model.name} takes parameters of shapes {shapes.get(name)}. "
                f"Received: {kernel.shape}, {bias.shape}."
            )
        layer = model.get_layer(name)
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)
    if missing:
        raise ValueError(f"{model.name} got no parameters for {', '.join(missing)}.")
