"""Finds VGG's weights, reads them layer by layer, and converts them from one format to another."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensorflow_vgg.download import Published, cached, fetch
from tensorflow_vgg.formats import READERS, WeightsError, network_of, stored_layers, write
from tensorflow_vgg.network import Parameters, Shapes, parameter_shapes

ENVIRONMENT = "FLOWERS_BATCH_WEIGHTS"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
# CC BY 4.0, Karen Simonyan and Andrew Zisserman; converted to TensorFlow's layout by the Keras authors.
PUBLISHED = {
    "vgg16": Published(
        f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        553467096,
        "md5:64373286793e3c8b2b4e3219cbf3544b",
    ),
    "vgg19": Published(
        f"{_KERAS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels.h5",
        574710816,
        "md5:cbe5617147190e668d6c5d5026f83318",
    ),
}

LICENCE = "CC BY 4.0, Karen Simonyan and Andrew Zisserman"
# Files that others have published, by checksum: Keras' with and without the fully connected layers, and the
# original conversion from Caffe.
KNOWN = {
    "md5:64373286793e3c8b2b4e3219cbf3544b": "Keras, VGG16",
    "md5:6d6bbae143d832006294945121d1f1fc": "Keras, VGG16 without fully connected layers",
    "md5:cbe5617147190e668d6c5d5026f83318": "Keras, VGG19",
    "md5:253f8cb515780f3b799900260a226db6": "Keras, VGG19 without fully connected layers",
    "sha1:6206897b35c2bfe5d9d16b83314e44fc3ea83b1c": "vgg16.npy, converted from the Caffe model",
}


@dataclass(frozen=True)
class Weights:
    """Where weights come from; nothing is read until they are loaded.

    Attributes:
        name: As the user would write it on any machine: `imagenet`, `random:SEED` or an absolute path.
        path: The file, or None where there is a seed.
        seed: What the numbers are drawn from, or None where there is a file.
    """

    name: str
    path: Path | None = None
    seed: int | None = None


def find(name: str, network: str = "vgg16", *, download: bool = True) -> Weights:
    """Finds weights by their name.

    Args:
        name: `random:SEED`, a file, or `imagenet`: the file that FLOWERS_BATCH_WEIGHTS names, else the cache,
            else a download.
        network: `vgg16` or `vgg19`.
        download: Whether `imagenet` may be downloaded.

    Raises:
        WeightsError: There are no such weights.
        DownloadError: They cannot be downloaded.
    """
    if name.startswith("random:"):
        seed = name.removeprefix("random:")
        if not seed.isdecimal():
            raise WeightsError(f"Random weights are named random:SEED, with a whole number. Received: {name}.")
        return Weights(name, seed=int(seed))
    if name != "imagenet":
        return Weights(str(_existing(name, "")), _existing(name, ""))
    if given := os.environ.get(ENVIRONMENT):
        return Weights(name, _existing(given, f" (from {ENVIRONMENT})"))
    if found := cached(PUBLISHED[network]):
        return Weights(name, found)
    if not download:
        raise WeightsError(f"The ImageNet weights of {network} are not on this machine.")
    return Weights(name, fetch(PUBLISHED[network]))


def load(weights: Weights, network: str, layer: str) -> Iterator[Parameters]:
    """Streams the parameters that a network needs up to a layer, in the network's order.

    Yields:
        Name, kernel float32 [3, 3, in, out] or [in, out], bias float32 [out].

    Raises:
        WeightsError: The file is no weights file, or misses a layer, or has one of another shape, or numbers
            that are not finite.
    """
    shapes = parameter_shapes(network, layer)
    if weights.seed is not None:
        yield from _draw(weights.seed, shapes)
        return
    path = weights.path
    assert path is not None
    if path.suffix not in READERS:
        raise WeightsError(f"{path} is not a weights file: its name must end in {', '.join(READERS)}.")
    for name, kernel, bias in READERS[path.suffix](path, shapes):
        kernel, bias = (np.ascontiguousarray(array, np.float32) for array in (kernel, bias))
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise WeightsError(f"Layer {name} in {path} should hold finite numbers only. Received: NaN or infinity.")
        yield name, kernel, bias


class Identity:
    """SHA-256 of the layers' names and float32 arrays: equal for equal weights, whatever the file format.

    It is taken while the parameters stream to where they are used, so that they are read once.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def of(self, parameters: Iterable[Parameters]) -> Iterator[Parameters]:
        """Passes parameters on, and takes account of them."""
        for name, kernel, bias in parameters:
            self._digest.update(name.encode() + b"\0")
            self._digest.update(np.ascontiguousarray(kernel).data)
            self._digest.update(np.ascontiguousarray(bias).data)
            yield name, kernel, bias

    @property
    def hexdigest(self) -> str:
        """The identity of all that has passed, in hexadecimal."""
        return self._digest.hexdigest()


def identity(parameters: Iterable[Parameters]) -> str:
    """The identity of weights that are not otherwise needed: see `Identity`."""
    taken = Identity()
    for _ in taken.of(parameters):
        pass
    return taken.hexdigest


@dataclass(frozen=True)
class Description:
    """What a weights file is.

    Attributes:
        path: The file.
        network: `vgg16` or `vgg19`.
        layers: The shapes of kernel and bias of each layer that it holds.
        sha256: Of the file.
        identity: Of its arrays, the same in every format.
        known: Whose published file it is; None for any other.
    """

    path: str
    network: str
    layers: dict[str, Shapes]
    sha256: str
    identity: str
    known: str | None


def check(path: str | os.PathLike[str]) -> Description:
    """Reads a weights file from beginning to end.

    Raises:
        WeightsError: It is none, or is broken.
    """
    weights = find(os.fspath(path))
    if weights.path is None:
        raise WeightsError(f"{weights.name} is drawn when it is needed: there is no file to check.")
    layers = stored_layers(weights.path)
    network = network_of(layers)
    digests = {f"{name}:{_digest(weights.path, name)}" for name in ("md5", "sha1")}
    return Description(
        path=str(weights.path),
        network=network,
        layers=parameter_shapes(network, layers[-1]),
        sha256=_digest(weights.path, "sha256"),
        identity=identity(load(weights, network, layers[-1])),
        known=next((KNOWN[digest] for digest in digests if digest in KNOWN), None),
    )


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], store: str = "float32") -> None:
    """Writes the weights of one file into another, in the format that its name ends in, whole or not at all.

    Args:
        source: A weights file, or `random:SEED` (of VGG16).
        target: The file to write.
        store: `float32`, or `float16` to halve the file.

    Raises:
        WeightsError: The source is no weights file, or the target's name ends in no format.
    """
    if store not in ("float32", "float16"):
        raise WeightsError(f"Weights are written as float32 or float16. Received: {store}.")
    weights, path = find(os.fspath(source)), Path(target).absolute()
    layers = stored_layers(weights.path) if weights.path else list(parameter_shapes("vgg16"))
    network = network_of(layers)
    about = {"network": network, "licence": LICENCE if weights.path else "none: random numbers"}
    about["source"] = f"sha256:{_digest(weights.path, 'sha256')}" if weights.path else weights.name
    scratch = path.with_name(f"_tmp-{uuid.uuid4().hex}{path.suffix}")
    try:
        write(scratch, load(weights, network, layers[-1]), store, about)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _existing(name: str, origin: str) -> Path:
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}{origin}: check its name.")
    return path


def _draw(seed: int, shapes: dict[str, Any]) -> Iterator[Parameters]:
    """He-normal kernels (arXiv 1502.01852, equation 10) and zero biases, equal on every machine."""
    random = np.random.default_rng(seed)
    for name, (kernel_shape, bias_shape) in shapes.items():
        kernel = random.standard_normal(kernel_shape, np.float32)
        kernel *= np.float32(np.sqrt(2 / np.prod(kernel_shape[:-1])))
        yield name, kernel, np.zeros(bias_shape, np.float32)
