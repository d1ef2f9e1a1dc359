"""Export of network and classifier as a model that runs without this package."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flowers_batch.classifier.head import Head
from flowers_batch.classifier.model_folder import MODEL, load_model
from flowers_batch.config import EncodeConfig
from flowers_batch.dataset.following import follow_weights
from flowers_batch.devices import init_tensorflow
from flowers_batch.encoding.networks import build_network
from flowers_batch.errors import InputError
from flowers_batch.exporting.keras_model import write_keras, write_saved_model
from flowers_batch.exporting.onnx_model import write_onnx
from flowers_batch.storage.io_errors import writing
from flowers_batch.storage.local_files import finish
from flowers_batch.storage.opening import PathOrUrl, open_folder
from flowers_batch.storage.scratch import scratch_folder
from flowers_batch.storage.subfolders import make_folder

if TYPE_CHECKING:
    import keras

SAVED_MODEL, ONNX, KERAS = FORMATS = ("savedmodel", "onnx", "keras")


def export(model: PathOrUrl, out: Path | str, format: str = SAVED_MODEL, weights: str | None = None) -> str:
    """Write network and classifier as one model, in float32.

    All formats return `label`, `probability`, `probabilities` (in the order of `classes` in `model.json`) and
    `is_unknown`. Their inputs differ:

    - `savedmodel` takes the bytes of image files: string [N], JPEG, PNG, GIF, BMP or WebP, as TensorFlow decodes them.
      It turns them upright by their EXIF orientation. A file that TensorFlow does not decode fails the batch.
    - `onnx` takes one decoded photo of any size, already upright: uint8 [height, width, 3], RGB.
    - `keras` takes pixels: float32 [N, 224, 224, 3], RGB in [0, 255], of upright photos' centre squares that were
      resized as by `tensorflow_vgg.images.centre_square`.

    Args:
        model: The model folder.
        out: The folder (`savedmodel`) or file to write: a local path at which nothing exists yet.
        format: `savedmodel`, `onnx` or `keras`.
        weights: The network's weights, if they are no longer where the model says.

    Returns:
        The path that was written.

    Raises:
        InputError: The model, the format or the path is not valid, or the weights are not the model's.
        RunError: The path cannot be written.
    """
    target = Path(out)
    if format not in FORMATS:
        raise InputError(f"`format` must be one of {', '.join(FORMATS)}. Received: {format}.")
    if ":/" in str(out):  # a secret may be in it
        raise InputError("The exported model is written to this machine's disk: give `out` a path, not a URL.")
    if os.path.lexists(target):
        raise InputError(f"{out} exists already: choose another path for the exported model.")
    if format == KERAS and target.suffix != ".keras":
        raise InputError(f"Keras only reads files whose names end in .keras. Received: {out}.")
    trained = load_model(model)
    fingerprint = trained.fingerprint
    weights = follow_weights(open_folder(model), MODEL, trained.weights, weights)
    encoding = EncodeConfig(weights=weights, **fingerprint.encoding)
    init_tensorflow()
    network, identity = build_network(encoding, "float32")
    if identity != fingerprint.weights:
        raise InputError(f"{encoding.weights} holds other weights than the model's: name the model's as `weights`.")
    writers: dict[str, Callable[[keras.Model, Head, Path], None]]
    writers = {SAVED_MODEL: write_saved_model, ONNX: write_onnx, KERAS: write_keras}
    parent = str(target.absolute().parent)
    with writing(str(target), parent):
        make_folder(parent)
        with scratch_folder(parent) as folder:
            scratch = Path(folder, target.name)
            writers[format](network, trained.head, scratch)
            for path in (*scratch.rglob("*"), scratch):
                finish(str(path))
            scratch.rename(target)
    return str(target)
