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
# Channels of each block's convolutions, width of the fully connected layers, and number of classes: the same table.
FILTERS = (64, 128, 256, 512, 512)
FC_WIDTH = 4096
CLASSES = 1000
_DROPOUT_AFTER = ("relu6", "relu7")
_POOLING_LAYERS = {"avg": "GlobalAveragePooling2D", "max": "GlobalMaxPooling2D", "flatten": "Flatten"}  # Keras' names

Shapes = tuple[tuple[int, ...], tuple[int]]  # of a layer's kernel and bias
# A layer's name, kernel and bias.
Parameters = tuple[str, NDArray[np.float32], NDArray[np.float32]]


def layer_names(network: str) -> list[str]:
    """Return the names of a network's layers, from the image to the probabilities.

    Raises:
        ValueError: The network does not exist.
    """
    if network not in NETWORKS:
        raise ValueError(f"The network must be one of {', '.join(NETWORKS)}. Received: {network}.")
    names = []
    for block, convolutions in enumerate(NETWORKS[network], 1):
        names += [f"conv{block}_{index}" for index in range(1, convolutions + 1)]
        names.append(f"pool{block}")
    return [*names, "fc6", "relu6", "fc7", "relu7", "fc8", "prob"]


def parameter_shapes(network: str, last_layer: str = "prob") -> dict[str, Shapes]:
    """Return the shapes of kernel and bias of each layer that has parameters, in the network's order.

    Kernels are [3, 3, in, out] for convolutions and [in, out] for fully connected layers. The input of `fc6` is `pool5`
    flattened with the channels last.

    Args:
        network: `vgg16` or `vgg19`.
        last_layer: The last layer to include.

    Raises:
        ValueError: The network or the layer does not exist.
    """
    last_layer = deepest_layer(network, [last_layer])
    names = layer_names(network)
    shapes: dict[str, Shapes] = {}
    channels = 3
    for name in names[: names.index(last_layer) + 1]:
        if name.startswith("conv"):
            filters = FILTERS[int(name[4]) - 1]
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
    """Build a network up to a layer, or up to the deepest of several.

    Variables are initialised from the given arrays directly, one layer after the other, so that no more than one
    layer's arrays are in memory in addition to the network.

    Args:
        network: `vgg16` or `vgg19`.
        layer: The layer or layers whose values are the model's output; later layers are not built.
        parameters: Name, kernel and bias of each layer of `parameter_shapes(network, layer)`, in that order,
            as `weights.load` streams them.
        precision: The type in which the layers compute and store their variables: `float32` or `bfloat16`;
            `mixed_bfloat16` keeps the variables in float32, for training. The output is always float32.
        pool: How an output [N, height, width, channels] is reduced to one row per photo: `avg` or `max` over height
            and width, or `flatten`; None leaves it as it is. Outputs [N, width] are unaffected.
        dropout: The dropout rate after `relu6` and `relu7` in training, 0 to 1 (0.5 in section 3.1 of arXiv
            1409.1556). It does not affect the outputs of these two layers.
        seed: The seed of the dropout.

    Returns:
        A model from float32 [N, 224, 224, 3], RGB in [0, 255], to float32 [N, ...]; for several layers, to a dict
        from each layer's name to its values.

    Raises:
        ValueError: The network, the layer or the way of pooling does not exist, or parameters are missing or have
            other shapes.
    """
    import keras

    if pool is not None and pool not in _POOLING_LAYERS:
        raise ValueError(f"The pooling must be one of {', '.join(_POOLING_LAYERS)}. Received: {pool}.")
    requested = [layer] if isinstance(layer, str) else list(layer)
    last = deepest_layer(network, requested)
    shapes = parameter_shapes(network, last)
    remaining = iter(parameters)
    photos = keras.Input((SIDE, SIDE, 3), dtype="float32", name="rgb")
    values = keras.ops.flip(photos, axis=-1) - np.asarray(MEAN_BGR, np.float32)
    outputs = {}
    names = layer_names(network)
    for name in names[: names.index(last) + 1]:
        if name == "fc6":
            values = keras.layers.Flatten(name="flatten", dtype=precision)(values)
        settings = {"name": name, "dtype": precision}
        if name in shapes:
            settings |= _initialisers(network, name, shapes[name], next(remaining, None))
        values = _layer(name, shapes, settings)(values)
        if name in requested:
            outputs[name] = _as_output(values, name, pool)
        if dropout and name in _DROPOUT_AFTER:
            values = keras.layers.Dropout(dropout, seed=seed + int(name[-1]), name=f"drop{name[-1]}")(values)
    if (surplus := next(remaining, None)) is not None:
        raise ValueError(f"{network} up to {last} has no parameters for a layer {surplus[0]}: leave it out.")
    model = keras.Model(photos, outputs[layer] if isinstance(layer, str) else outputs, name=network)
    compile_for_prediction(model)
    return model


def compile_for_prediction(model: keras.Model) -> None:
    """Compile a model for prediction: in TensorFlow without XLA.

    On CPUs XLA is slower than oneDNN's kernels, and it compiles the model again for each batch size.
    """
    import keras

    model.compile(jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")


def deepest_layer(network: str, layers: Sequence[str]) -> str:
    """Return the one of several layers that comes last in a network.

    Raises:
        ValueError: The network or a layer does not exist, or `layers` is empty.
    """
    names = layer_names(network)
    for layer in layers:
        if layer not in names:
            raise ValueError(f"{network} has no layer {layer}; it has {', '.join(names)}.")
    return max(layers, key=names.index)


def layer_shape(network: str, layer: str) -> tuple[int, ...]:
    """Return the shape of a layer's values for one photo: [height, width, channels] or [width].

    Raises:
        ValueError: The network or the layer does not exist.
    """
    layer = deepest_layer(network, [layer])
    if layer.startswith(("conv", "pool")):
        block = int(layer[4])
        side = SIDE >> (block if layer.startswith("pool") else block - 1)
        return side, side, FILTERS[block - 1]
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
    """Return the settings that initialise a Keras layer from given arrays."""
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
    """Return a layer's values in float32, pooled if requested and if they have a height and a width."""
    from keras import layers

    if pool is not None and len(values.shape) == 4:
        # Before pooling: in bfloat16 the average of 12,544 numbers (112 x 112) would lose most of its digits.
        values = layers.Activation("linear", dtype="float32", name=f"{name}_float32")(values)
        return getattr(layers, _POOLING_LAYERS[pool])(dtype="float32", name=f"{name}_{pool}")(values)
    return layers.Activation("linear", dtype="float32", name=f"{name}_float32")(values)
