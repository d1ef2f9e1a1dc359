"""A model that others can run without this package: from an image to its label and its probabilities."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flowers_batch.classifier.head import Head
from flowers_batch.classifier.model_folder import load_model
from flowers_batch.config import EncodeConfig
from flowers_batch.devices import init_tensorflow
from flowers_batch.encoding.networks import build_network
from flowers_batch.errors import InputError
from flowers_batch.storage.folder import PathOrUrl

if TYPE_CHECKING:
    import keras
from flowers_batch.exporting.keras_model import _write_keras, _write_saved_model
from flowers_batch.exporting.onnx_model import _write_onnx

SAVED_MODEL, ONNX, KERAS = FORMATS = ("savedmodel", "onnx", "keras")


def export(model: PathOrUrl, out: Path | str, format: str = SAVED_MODEL, weights: str | None = None) -> str:
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
        format: `savedmodel`, `onnx` or `keras`.
        weights: Where the network's weights lie, if no longer where the model says.

    Returns:
        Where it was written.

    Raises:
        InputError: There is no such model or format, the weights are others, or something lies at `out`.
    """
    target = Path(out)
    if format not in FORMATS:
        raise InputError(f"`format` must be one of {', '.join(FORMATS)}. Received: {format}.")
    if "://" in str(out) or target.exists():
        raise InputError(f"{out} is no new path on this machine: name another one for the exported model.")
    if format == KERAS and target.suffix != ".keras":
        raise InputError(f"Keras reads only files whose names end in .keras. Received: {out}.")
    trained = load_model(model)
    made = trained.fingerprint
    encoding = EncodeConfig(weights=weights or trained.weights, **made.encoding)
    init_tensorflow()
    network, identity = build_network(encoding, "float32")
    if identity != made.weights:
        raise InputError(f"{encoding.weights} holds other weights than those of the model: name them by `weights`.")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"_tmp-{target.name}")
    writers: dict[str, Callable[[keras.Model, Head, Path], None]]
    writers = {SAVED_MODEL: _write_saved_model, ONNX: _write_onnx, KERAS: _write_keras}
    try:
        writers[format](network, trained.head, scratch)
        scratch.rename(target)
    finally:
        if scratch.is_dir():
            shutil.rmtree(scratch)
        scratch.unlink(missing_ok=True)
    return str(target)
