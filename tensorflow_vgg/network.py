"""VGG16 and VGG19 as Keras models, built up to a named layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

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
_DROPPED = ("relu6", "relu7")
_POOLS = {"avg": "GlobalAveragePooling2D", "max": "GlobalMaxPooling2D", "flatten": "Flatten"}  # Keras' layers

Shapes = tuple[tuple[int, ...], tuple[int]]
Parameters = tuple[str, NDArray[np.float32], NDArray[np.float32]]


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


def parameter_shapes(network: str, upto: str = "prob") -> dict[str, Shapes]:
    """The shapes of kernel and bias of each layer that has them, in the network's order.

    Kernels are [3, 3, in, out] for convolutions and [in, out] for fully connected layers; `fc6` takes `pool5`
    flattened with the channels last.

    Args:
        network: `vgg16` or `vgg19`.
        upto: The last layer that is used.

    Raises:
        ValueError: There is no such network or layer.
    """
    upto = deepest(network, [upto])
    names = layer_names(network)
    shapes: dict[str, Shapes] = {}
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
    layer: str | Sequence[str],
    parameters: Iterable[Parameters],
    precision: str = "float32",
    pool: str | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Builds a network up to a layer, or to the deepest of several.

    Each layer's arrays go straight into its variables, one layer after the other: no variable is first filled
    with something else, and no more than a layer's arrays are held beside the network.

    Args:
        network: `vgg16` or `vgg19`.
        layer: The layer whose values are the model's output, or several; what comes after is not built.
        parameters: Name, kernel and bias of each layer of `parameter_shapes(network, layer)`, in that order,
            as `weights.load` streams them.
        precision: `float32` or `bfloat16`: what the layers compute in; `mixed_bfloat16` keeps their variables in
            float32, as training wants it. The output is float32 in each.
        pool: What makes a row of numbers of an output [N, height, width, channels]: `avg` or `max` over height and
            width, or `flatten`; None leaves it. Outputs that are rows already stay as they are.
        dropout: The share, 0 to 1, of the values of `relu6` and `relu7` that the next layer does not get to see while
            the network is trained (section 3.1 of arXiv 1409.1556 has 0.5). The output has all.
        seed: Decides on which those are.

    Returns:
        A model from float32 [N, 224, 224, 3], RGB in [0, 255], to float32 [N, ...], or for several layers to a
        dict from each layer's name to that.

    Raises:
        ValueError: There is no such network, layer or way to pool, or parameters are missing or have other shapes.
    """
    import keras

    if pool is not None and pool not in _POOLS:
        raise ValueError(f"A map is pooled by one of {', '.join(_POOLS)}. Received: {pool}.")
    asked = [layer] if isinstance(layer, str) else list(layer)
    last = deepest(network, asked)
    shapes = parameter_shapes(network, last)
    given = iter(parameters)
    photos = keras.Input((SIDE, SIDE, 3), dtype="float32", name="rgb")
    values = keras.ops.flip(photos, axis=-1) - np.asarray(MEAN_BGR, np.float32)
    outputs = {}
    names = layer_names(network)
    for name in names[: names.index(last) + 1]:
        if name == "fc6":
            values = keras.layers.Flatten(name="flatten", dtype=precision)(values)
        settings = {"name": name, "dtype": precision}
        if name in shapes:
            settings |= _initialisers(network, name, shapes[name], next(given, None))
        values = _layer(name, shapes, settings)(values)
        if name in asked:
            outputs[name] = _as_output(values, name, pool)
        if dropout and name in _DROPPED:
            values = keras.layers.Dropout(dropout, seed=seed + int(name[-1]), name=f"drop{name[-1]}")(values)
    if (surplus := next(given, None)) is not None:
        raise ValueError(f"{network} up to {last} has no parameters for a layer {surplus[0]}.")
    model = keras.Model(photos, outputs[layer] if isinstance(layer, str) else outputs, name=network)
    compile_for_prediction(model)
    return model


def compile_for_prediction(model: keras.Model) -> None:
    """Sets how a model is compiled: in TensorFlow without XLA, which on CPUs is slower than oneDNN's kernels and
    compiles anew for each batch size."""
    import keras

    model.compile(jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")


def deepest(network: str, layers: Sequence[str]) -> str:
    """The last of several layers in a network's order.

    Raises:
        ValueError: There is no such network or layer, or none is named.
    """
    names = layer_names(network)
    for layer in layers:
        if layer not in names:
            raise ValueError(f"{network} has no layer {layer}; it has {', '.join(names)}.")
    return max(layers, key=names.index)


def layer_shape(network: str, layer: str) -> tuple[int, ...]:
    """The shape of a layer's values for one photo: [height, width, channels] or [width].

    Raises:
        ValueError: There is no such network or layer.
    """
    layer = deepest(network, [layer])
    if layer.startswith(("conv", "pool")):
        block = int(layer[4])
        side = SIDE >> (block if layer.startswith("pool") else block - 1)
        return side, side, _FILTERS[block - 1]
    return (CLASSES,) if layer in ("fc8", "prob") else (FC_WIDTH,)


def _layer(name: str, shapes: dict[str, Shapes], settings: dict[str, Any]) -> keras.Layer:
    from keras import layers

    if name.startswith("conv"):
        return layers.Conv2D(shapes[name][1][0], 3, padding="same", activation="relu", **settings)
    if name.startswith("pool"):
        return layers.MaxPooling2D(2, **settings)
    if name.startswith("fc"):
        return layers.Dense(shapes[name][1][0], **settings)
    return layers.Activation("softmax" if name == "prob" else "relu", **settings)


def _initialisers(network: str, name: str, shapes: Shapes, given: Parameters | None) -> dict[str, Any]:
    """What fills a layer's variables with given arrays instead of random numbers."""
    from keras import ops

    if given is None or given[0] != name:
        raise ValueError(f"{network} takes parameters for {name} next. Received: {given[0] if given else 'no more'}.")
    _, kernel, bias = given
    if (kernel.shape, bias.shape) != shapes:
        raise ValueError(
            f"Layer {name} of {network} takes parameters of shapes {shapes}. Received: {(kernel.shape, bias.shape)}."
        )
    return {
        "kernel_initializer": lambda shape, dtype=None: ops.convert_to_tensor(kernel, dtype),
        "bias_initializer": lambda shape, dtype=None: ops.convert_to_tensor(bias, dtype),
    }


def _as_output(values: keras.KerasTensor, name: str, pool: str | None) -> keras.KerasTensor:
    """A layer's values in float32, pooled if they are a map and that is asked for."""
    from keras import layers

    if pool is not None and len(values.shape) == 4:
        # In float32: an average of 12,544 numbers in bfloat16 would lose most of its digits.
        values = layers.Activation("linear", dtype="float32", name=f"{name}_float32")(values)
        return getattr(layers, _POOLS[pool])(dtype="float32", name=f"{name}_{pool}")(values)
    return layers.Activation("linear", dtype="float32", name=f"{name}_float32")(values)
