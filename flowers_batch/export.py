"""A model as others can run it, without this package: from an image to its label and its probabilities."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.config import EncodeConfig, InputError
from flowers_batch.device import share_gpus
from flowers_batch.encoder import build_network
from flowers_batch.heads import Head, Layer, load_model
from flowers_batch.storage import Where
from tensorflow_vgg.images import MEAN_BGR, SIDE

if TYPE_CHECKING:
    import keras

SAVED_MODEL, ONNX, KERAS = FORMATS = ("savedmodel", "onnx", "keras")


def export(model: Where, out: Path | str, kind: str = SAVED_MODEL, weights: str | None = None) -> str:
    """Writes network and head together, in float32; what they give is named alike in each format.

    All give `label`, `probability`, `probabilities` (in the order of `classes` in `model.json`) and `is_unknown`.

    - `savedmodel` takes image files' bytes: string [N], JPEG, PNG, GIF or BMP, as TensorFlow reads them. It turns no
      photo by its EXIF orientation.
    - `onnx` takes a decoded photo of any size: uint8 [height, width, 3], RGB.
    - `keras` takes pixels: float32 [N, 224, 224, 3], RGB in [0, 255], of centre squares that were resized as
      `tensorflow_vgg.images.centre_square` does it.

    Args:
        model: The model folder.
        out: A folder for `savedmodel`, else a file; on this machine, and not there yet.
        kind: `savedmodel`, `onnx` or `keras`.
        weights: Where the network's weights lie, if no longer where the model says.

    Returns:
        Where it was written.

    Raises:
        InputError: There is no such model or format, the weights are others, or something lies at `out`.
    """
    target = Path(out)
    if kind not in FORMATS:
        raise InputError(f"--format must be one of {', '.join(FORMATS)}. Received: {kind}.")
    if "://" in str(out) or target.exists():
        raise InputError(f"{out} is no new path on this machine: name another one for the exported model.")
    if kind == KERAS and target.suffix != ".keras":
        raise InputError(f"Keras reads only files whose names end in .keras. Received: {out}.")
    trained = load_model(model)
    made = trained.fingerprint
    encoding = EncodeConfig(weights=weights or trained.weights, **made.encoding)
    share_gpus()
    network, identity = build_network(encoding, "float32")
    if identity != made.weights:
        raise InputError(f"{encoding.weights} holds other weights than those of the model: name them by --weights.")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"_tmp-{target.name}")
    writers: dict[str, Callable[[keras.Model, Head, Path], None]]
    writers = {SAVED_MODEL: _write_saved_model, ONNX: _write_onnx, KERAS: _write_keras}
    try:
        writers[kind](network, trained.head, scratch)
        scratch.rename(target)
    finally:
        if scratch.is_dir():
            shutil.rmtree(scratch)
        scratch.unlink(missing_ok=True)
    return str(target)


def _folded(head: Head) -> list[Layer]:
    """The head's layers with standardisation and temperature inside: kernel and bias of each."""
    layers = [(kernel.astype(np.float64), bias.astype(np.float64)) for kernel, bias in head.layers]
    kernel, bias = layers[0]
    layers[0] = kernel / head.scale[:, None], bias - (head.mean / head.scale) @ kernel
    layers[-1] = layers[-1][0] / head.temperature, layers[-1][1] / head.temperature
    return [(kernel.astype(np.float32), bias.astype(np.float32)) for kernel, bias in layers]


def _labelling(network: keras.Model, head: Head) -> keras.Model:
    """Pixels [N, 224, 224, 3] to all that an exported model gives."""
    import keras

    values = network.output
    layers = _folded(head)
    for number, (kernel, bias) in enumerate(layers, 1):
        last = number == len(layers)
        dense = keras.layers.Dense(len(bias), "softmax" if last else "relu", name=f"head{number}")
        values = dense(values)
        dense.set_weights([kernel, bias])
    sure = keras.ops.max(values, axis=-1)
    names = keras.layers.StringLookup(vocabulary=list(head.classes), num_oov_indices=0, invert=True, name="classes")
    return keras.Model(
        network.input,
        {
            "label": names(keras.ops.argmax(values, axis=-1)),
            "probability": sure,
            "probabilities": values,
            "is_unknown": keras.ops.less(sure, head.threshold or 0.0),
        },
        name="labelling",
    )


def _write_keras(network: keras.Model, head: Head, scratch: Path) -> None:
    import keras

    for layer in network.layers:
        if hasattr(layer, "kernel_initializer"):  # which hold the weights, and would be written with them
            layer.kernel_initializer = layer.bias_initializer = keras.initializers.Zeros()
    whole = scratch.with_suffix(".keras")
    _labelling(network, head).save(whole)
    whole.rename(scratch)


def _write_saved_model(network: keras.Model, head: Head, scratch: Path) -> None:
    import keras
    import tensorflow as tf

    labelling = _labelling(network, head)

    def label(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return labelling(tf.map_fn(_read, images, fn_output_signature=tf.TensorSpec((SIDE, SIDE, 3), tf.float32)))

    archive = keras.export.ExportArchive()
    archive.track(labelling)
    archive.add_endpoint("serving_default", label, [tf.TensorSpec((None,), tf.string, name="images")])
    archive.write_out(scratch, verbose=False)


def _read(data: Any) -> Any:
    """The pixels float32 [224, 224, 3] of an image file's bytes, as a graph of TensorFlow's.

    The reference's resize is linear and separable: a product with one matrix along each side, here with a picture that
    is mirrored at its borders, so that the matrix is a sampled Gaussian everywhere.
    """
    import tensorflow as tf

    photo = tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )
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


# What `_read` does with a decoded photo, in ONNX's operators.
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
_GAUSSIAN = """
    {out}_ratio = Div ({x}, width)
    {out}_square = Mul ({out}_ratio, {out}_ratio)
    {out}_power = Mul ({out}_square, minus_half)
    {out}_value = Exp ({out}_power)
    {out}_distance = Abs ({x})
    {out}_inside = LessOrEqual ({out}_distance, radius)
    {out} = Where ({out}_inside, {out}_value, zero)
"""


def _constants() -> dict[str, NDArray[Any]]:
    """What `_PREPROCESSING` takes as given."""
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


def _write_onnx(network: keras.Model, head: Head, scratch: Path) -> None:
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
    """The network's layers and the head's as ONNX's operators, after `rgb`; their arrays are added to `arrays`."""
    import keras

    value = "rgb"
    first = True
    for layer in network.layers:
        name = layer.name
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            # The model's own order of colours is the other way round.
            arrays[f"{name}_kernel"] = np.ascontiguousarray(
                (kernel[:, :, ::-1] if first else kernel).transpose(3, 2, 0, 1)
            )
            arrays[f"{name}_bias"] = bias
            yield f"{name}_sum = Conv <pads = [1, 1, 1, 1]> ({value}, {name}_kernel, {name}_bias)\n"
            yield f"{name} = Relu ({name}_sum)\n"
            first = False
        elif isinstance(layer, keras.layers.MaxPooling2D):
            yield f"{name} = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> ({value})\n"
        elif isinstance(layer, keras.layers.Flatten):
            yield f"{name}_last = Transpose <perm = [0, 2, 3, 1]> ({value})\n{name} = Flatten ({name}_last)\n"
        elif isinstance(layer, keras.layers.GlobalAveragePooling2D | keras.layers.GlobalMaxPooling2D):
            how = "Average" if isinstance(layer, keras.layers.GlobalAveragePooling2D) else "Max"
            yield f"{name}_map = Global{how}Pool ({value})\n{name} = Flatten ({name}_map)\n"
        elif isinstance(layer, keras.layers.Dense):
            arrays[f"{name}_kernel"], arrays[f"{name}_bias"] = layer.get_weights()
            yield f"{name} = Gemm ({value}, {name}_kernel, {name}_bias)\n"
        elif isinstance(layer, keras.layers.Activation) and layer.activation is not keras.activations.linear:
            how = "Softmax" if layer.activation is keras.activations.softmax else "Relu"
            yield f"{name} = {how} ({value})\n"
        else:  # what changes nothing; and the order of colours and the mean, which stand in the preprocessing
            continue
        value = name
    layers = _folded(head)
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
