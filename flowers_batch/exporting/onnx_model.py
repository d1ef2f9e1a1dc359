"""Network, preprocessing and head as one ONNX model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.head import Head
from flowers_batch.classifier.normalization import L2, MIN_NORM, NONE, ROOT_OFFSET, SQRT_L2, STANDARDIZED
from flowers_batch.errors import InputError
from flowers_batch.exporting.keras_model import folded_layers
from tensorflow_vgg.images import MEAN_BGR, SIDE

if TYPE_CHECKING:
    import keras

# The steps of `keras_model.read_pixels` on a decoded photo, in ONNX operators.
_PREPROCESSING = """
    shape = Shape <start = 0, end = 2> (image)
    side = ReduceMin <keepdims = 1> (shape)
    free = Sub (shape, side)
    corner = Div (free, two)
    opposite = Add (corner, side)
    bytes = Slice (image, corner, opposite, both)
    square = Cast <to = 1> (bytes)
    length = Cast <to = 11> (side)
    factor = Div (length, target)
    beyond = Sub (factor, one)
    halved = Mul (beyond, half)
    sigma = Max (halved, zero)
    fourfold = Mul (sigma, four)
    rounded = Add (fourfold, half)
    radius = Floor (rounded)
    blurs = Greater (sigma, zero)
    width = Where (blurs, sigma, one)
    border = Add (radius, one)
    places = Range (first, last, step)
    moved = Add (places, half)
    scaled = Mul (moved, factor)
    centres = Sub (scaled, half)
    floors = Floor (centres)
    parts = Sub (centres, floors)
    below = Unsqueeze (floors, second)
    share = Unsqueeze (parts, second)
    rest = Sub (one, share)
    minus_border = Neg (border)
    far = Add (length, border)
    start = Squeeze (minus_border)
    stop = Squeeze (far)
    sources = Range (start, stop, step)
    away = Sub (sources, below)
    away_by_one = Sub (away, one)
    minus_radius = Neg (radius)
    kernel_start = Squeeze (minus_radius)
    kernel_stop = Squeeze (border)
    offsets = Range (kernel_start, kernel_stop, step)
    GAUSSIAN(offsets, kernel)
    GAUSSIAN(away, near)
    GAUSSIAN(away_by_one, next)
    total = ReduceSum <keepdims = 1> (kernel)
    near_part = Mul (rest, near)
    next_part = Mul (share, next)
    sum = Add (near_part, next_part)
    weights = Div (sum, total)
    matrix = Cast <to = 1> (weights)
    pad = Cast <to = 7> (border)
    pads = Concat <axis = 0> (pad, pad, none, pad, pad, none)
    mirrored = Pad <mode = "reflect"> (square, pads)
    lines = Reshape (mirrored, as_lines)
    shrunk = MatMul (matrix, lines)
    tall = Reshape (shrunk, as_pixels)
    turned = Transpose <perm = [1, 0, 2]> (tall)
    columns = Reshape (turned, as_lines)
    small = MatMul (matrix, columns)
    pixels = Reshape (small, as_square)
    clipped = Clip (pixels, darkest, brightest)
    channels = Transpose <perm = [2, 1, 0]> (clipped)
    photo = Unsqueeze (channels, first_axis)
    rgb = Sub (photo, mean)
"""
# Keras' operations for the order of colours and the mean, which the steps above include.
_IN_PREPROCESSING = ("Flip", "Subtract")
_GAUSSIAN = """
    {out}_ratio = Div ({x}, width)
    {out}_square = Mul ({out}_ratio, {out}_ratio)
    {out}_power = Mul ({out}_square, minus_half)
    {out}_value = Exp ({out}_power)
    {out}_distance = Abs ({x})
    {out}_inside = LessOrEqual ({out}_distance, radius)
    {out} = Where ({out}_inside, {out}_value, zero)
"""


# `Normalization.apply` of the value CODE, by the normalisation's name; `standardized` is folded into the first layer.
_L2 = """
    squares = ReduceSumSquare <keepdims = 1> (CODE, second)
    at_least = Max (squares, least_square)
    norm = Sqrt (at_least)
    normalized = Div (CODE, norm)
"""
_ROOT = """
    sign = Sign (CODE)
    size = Abs (CODE)
    size_above_zero = Add (size, root_offset)
    root = Sqrt (size_above_zero)
    root_from_zero = Sub (root, root_shift)
    roots = Mul (sign, root_from_zero)
"""
_UNCHANGED = "normalized = Identity (CODE)\n"
_NORMALIZATIONS = {
    NONE: _UNCHANGED,
    STANDARDIZED: _UNCHANGED,
    L2: _L2,
    SQRT_L2: _ROOT + _L2.replace("CODE", "roots"),
}


def _constants() -> dict[str, NDArray[Any]]:
    """Return the constants of `_PREPROCESSING` by name."""
    numbers = {"target": SIDE, "one": 1, "half": 0.5, "zero": 0, "four": 4, "minus_half": -0.5}
    scalars = {"first": 0.0, "last": float(SIDE), "step": 1.0}
    shapes = {
        "two": [2],
        "both": [0, 1],
        "second": [1],
        "none": [0],
        "first_axis": [0],
        "as_lines": [0, -1],
        "as_pixels": [SIDE, -1, 3],
        "as_square": [SIDE, SIDE, 3],
    }
    return (
        {name: np.array([value], np.float64) for name, value in numbers.items()}
        | {name: np.array(value, np.float64) for name, value in scalars.items()}
        | {name: np.array(value, np.int64) for name, value in shapes.items()}
        | {"darkest": np.array(0, np.float32), "brightest": np.array(255, np.float32)}
        | {"mean": np.array(MEAN_BGR[::-1], np.float32).reshape(1, 3, 1, 1)}
    )


def write_onnx(network: keras.Model, head: Head, scratch: Path) -> None:
    """Write an ONNX file.

    Raises:
        InputError: The package onnx is not installed.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError:
        raise InputError("The format onnx needs the package onnx: pip install 'flowers-batch[onnx]'.") from None
    text = _PREPROCESSING
    for line in _PREPROCESSING.splitlines():
        if line.strip().startswith("GAUSSIAN"):
            source, result = line.strip()[len("GAUSSIAN(") : -1].split(", ")
            text = text.replace(line, _GAUSSIAN.format(x=source, out=result))
    arrays = _constants()
    text += "".join(_onnx_layers(network, head, arrays))
    parsed = onnx.parser.parse_graph(
        "labelling (uint8[height, width, 3] image) => (string[1] label, float[1] probability, "
        f"float[1, {len(head.classes)}] probabilities, bool[1] is_unknown) {{ {text} }}"
    )
    for name, array in arrays.items():
        parsed.initializer.append(numpy_helper.from_array(array, name))
    model = helper.make_model(parsed, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, scratch)


def _onnx_layers(network: keras.Model, head: Head, arrays: dict[str, NDArray[Any]]) -> Iterator[str]:
    """Yield the layers of network and head as ONNX operators, from `rgb` on; add their arrays to `arrays`.

    Raises:
        InputError: The network has a layer that is not known here.
    """
    import keras
    from keras.activations import linear, relu, softmax

    value = "rgb"
    first = True
    for layer in network.operations:
        name, activation = layer.name, getattr(layer, "activation", None)
        if isinstance(layer, keras.layers.Conv2D) and activation is relu and layer.kernel_size == (3, 3):
            kernel, bias = layer.get_weights()
            # The preprocessing leaves RGB; VGG's first kernel takes BGR.
            arrays[f"{name}_kernel"] = np.ascontiguousarray(
                (kernel[:, :, ::-1] if first else kernel).transpose(3, 2, 0, 1)
            )
            arrays[f"{name}_bias"] = bias
            yield f"{name}_sum = Conv <pads = [1, 1, 1, 1]> ({value}, {name}_kernel, {name}_bias)\n"
            yield f"{name} = Relu ({name}_sum)\n"
            first = False
        elif isinstance(layer, keras.layers.MaxPooling2D) and layer.pool_size == (2, 2):
            yield f"{name} = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> ({value})\n"
        elif isinstance(layer, keras.layers.Flatten):
            yield f"{name}_last = Transpose <perm = [0, 2, 3, 1]> ({value})\n{name} = Flatten ({name}_last)\n"
        elif isinstance(layer, keras.layers.GlobalAveragePooling2D | keras.layers.GlobalMaxPooling2D):
            how = "Average" if isinstance(layer, keras.layers.GlobalAveragePooling2D) else "Max"
            yield f"{name}_map = Global{how}Pool ({value})\n{name} = Flatten ({name}_map)\n"
        elif isinstance(layer, keras.layers.Dense) and activation is linear:
            arrays[f"{name}_kernel"], arrays[f"{name}_bias"] = layer.get_weights()
            yield f"{name} = Gemm ({value}, {name}_kernel, {name}_bias)\n"
        elif isinstance(layer, keras.layers.Activation) and activation in (relu, softmax):
            yield f"{name} = {'Softmax' if activation is softmax else 'Relu'} ({value})\n"
        elif _changes_nothing(layer) or (first and type(layer).__name__ in _IN_PREPROCESSING):
            continue
        else:
            raise InputError(
                f"The network's layer {name} ({type(layer).__name__}) cannot be exported as onnx: choose `format` "
                "savedmodel or keras."
            )
        value = name
    arrays |= {"root_offset": np.array(ROOT_OFFSET, np.float32), "root_shift": np.array(ROOT_OFFSET**0.5, np.float32)}
    arrays["least_square"] = np.array(MIN_NORM**2, np.float32)
    yield _NORMALIZATIONS[head.normalization.name].replace("CODE", value)
    value = "normalized"
    layers = folded_layers(head)
    for number, (kernel, bias) in enumerate(layers, 1):
        arrays[f"head{number}_kernel"], arrays[f"head{number}_bias"] = kernel, bias
        yield f"head{number} = Gemm ({value}, head{number}_kernel, head{number}_bias)\n"
        value = f"head{number}"
        if number < len(layers):
            yield f"{value}_relu = Relu ({value})\n"
            value = f"{value}_relu"
    arrays["classes"] = np.array(head.classes, object)
    arrays["threshold"] = np.array(head.threshold or 0.0, np.float32)
    yield f"probabilities = Softmax ({value})\n"
    yield "best = ArgMax <axis = 1, keepdims = 0> (probabilities)\n"
    yield "label = Gather (classes, best)\n"
    yield "probability = ReduceMax <keepdims = 0> (probabilities, second)\n"
    yield "is_unknown = Less (probability, threshold)\n"


def _changes_nothing(layer: keras.Operation) -> bool:
    """Return whether a layer's output is its input, outside of training."""
    import keras

    return isinstance(layer, keras.layers.InputLayer | keras.layers.Dropout) or (
        isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.linear
    )
