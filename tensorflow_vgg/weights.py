"""Find VGG's weights, read them layer by layer, and convert them from one file format to another."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensorflow_vgg.download import PublishedFile, fetch, find_cached, no_progress
from tensorflow_vgg.formats import READERS, WeightsError, metadata_of, network_of, stored_layers, stored_names, write
from tensorflow_vgg.formats.files import unknown_suffix
from tensorflow_vgg.network import Parameters, Shapes, parameter_shapes

ENVIRONMENT_VARIABLE = "FLOWERS_BATCH_WEIGHTS"  # names the file that `imagenet` stands for
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
# Sizes and checksums as in `keras.applications`; converted to TensorFlow's layout by the Keras authors.
PUBLISHED = {
    "vgg16": PublishedFile(
        f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        553467096,
        "md5:64373286793e3c8b2b4e3219cbf3544b",
    ),
    "vgg19": PublishedFile(
        f"{_KERAS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels.h5",
        574710816,
        "md5:cbe5617147190e668d6c5d5026f83318",
    ),
}

_KEPT_METADATA = ("licence", "trained further", "tuned on")  # by a conversion
LICENCE = "CC BY 4.0, Karen Simonyan and Andrew Zisserman"
# Published files by checksum: those of `keras.applications`, with and without the fully connected layers, and the
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
    """The source of weights; nothing is read until they are loaded.

    Attributes:
        name: A name that is valid on every machine: `imagenet`, `random:SEED` or an absolute path.
        path: The file; None for random weights.
        seed: The seed of random weights; None for a file.
    """

    name: str
    path: Path | None = None
    seed: int | None = None


def find(
    name: str, network: str = "vgg16", *, download: bool = True, progress: Callable[[], None] = no_progress
) -> Weights:
    """Find weights by their name.

    Args:
        name: `random:SEED`, a file, or `imagenet`: the file that FLOWERS_BATCH_WEIGHTS names, else the cached file,
            else a download.
        network: `vgg16` or `vgg19`.
        download: Whether `imagenet` may be downloaded.
        progress: As for `download.fetch`.

    Raises:
        WeightsError: There are no such weights.
        DownloadError: The weights cannot be downloaded.
    """
    if name.startswith("random:"):
        seed = name.removeprefix("random:")
        if not seed.isdecimal():
            raise WeightsError(f"Random weights are named random:SEED, where SEED is a whole number. Received: {name}.")
        return Weights(name, seed=int(seed))
    if name != "imagenet":
        return Weights(str(_existing_file(name, "")), _existing_file(name, ""))
    if given := os.environ.get(ENVIRONMENT_VARIABLE):
        return Weights(name, _existing_file(given, f" (from {ENVIRONMENT_VARIABLE})"))
    if found := find_cached(PUBLISHED[network]):
        return Weights(name, found)
    if not download:
        raise WeightsError(
            f"The ImageNet weights of {network} are not on this machine: name a file, or allow the download."
        )
    return Weights(name, fetch(PUBLISHED[network], progress=progress))


def load(weights: Weights, network: str, layer: str) -> Iterator[Parameters]:
    """Load the parameters that a network needs up to a layer, in the network's order, one layer at a time.

    Args:
        weights: Where they come from.
        network: `vgg16` or `vgg19`.
        layer: The last layer that is needed.

    Yields:
        Name, kernel float32 [3, 3, in, out] or [in, out], bias float32 [out].

    Raises:
        WeightsError: The file is not a weights file, lacks a layer, has a layer of another shape, or has numbers
            that are not finite.
    """
    shapes = parameter_shapes(network, layer)
    if weights.seed is not None:
        yield from _draw_parameters(weights.seed, shapes)
        return
    path = weights.path
    assert path is not None
    if path.suffix not in READERS:
        raise unknown_suffix(path)
    for name, kernel, bias in READERS[path.suffix](path, shapes):
        kernel, bias = (np.ascontiguousarray(array, np.float32) for array in (kernel, bias))
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise WeightsError(f"Layer {name} in {path} should hold finite numbers only. Received: NaN or infinity.")
        yield name, kernel, bias


def missing_layers(weights: Weights, network: str, layer: str) -> list[str]:
    """Return the layers that a network needs up to a layer and that weights lack; no array is read.

    Raises:
        WeightsError: The file is not a weights file.
    """
    if weights.path is None:
        return []
    stored = stored_names(weights.path)
    return [name for name in parameter_shapes(network, layer) if name not in stored]


class IdentityHasher:
    """Computes the identity of weights: the SHA-256 of the layers' names and float32 arrays.

    Equal weights have the same identity in every file format. The hash is computed while the parameters stream to
    where they are used, so that they are read only once.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def hash_stream(self, parameters: Iterable[Parameters]) -> Iterator[Parameters]:
        """Yield the given parameters unchanged, and add them to the hash."""
        for name, kernel, bias in parameters:
            self._digest.update(name.encode() + b"\0")
            self._digest.update(np.ascontiguousarray(kernel).data)
            self._digest.update(np.ascontiguousarray(bias).data)
            yield name, kernel, bias

    @property
    def hexdigest(self) -> str:
        """The identity of all parameters hashed so far, in hexadecimal."""
        return self._digest.hexdigest()


def identity(parameters: Iterable[Parameters]) -> str:
    """Return the identity of weights that are not needed otherwise: see `IdentityHasher`."""
    hasher = IdentityHasher()
    for _ in hasher.hash_stream(parameters):
        pass
    return hasher.hexdigest


@dataclass(frozen=True)
class WeightsDescription:
    """The contents of a weights file.

    Attributes:
        path: The file.
        network: `vgg16` or `vgg19`.
        layers: The shapes of kernel and bias of each layer in the file.
        sha256: The file's SHA-256, in hexadecimal.
        identity: The identity of its arrays, which is the same in every format: see `IdentityHasher`.
        known: The publisher, if this is a published file; else None.
    """

    path: str
    network: str
    layers: dict[str, Shapes]
    sha256: str
    identity: str
    known: str | None


def check(path: str | os.PathLike[str]) -> WeightsDescription:
    """Read a weights file completely, and describe it.

    Raises:
        WeightsError: The file is not a weights file, or is damaged.
    """
    weights = find(os.fspath(path))
    if weights.path is None:
        raise WeightsError(f"{weights.name} stands for random numbers: there is no file to check.")
    layers = stored_layers(weights.path)
    network = network_of(layers)
    digests = {f"{name}:{_hash_file(weights.path, name)}" for name in ("md5", "sha1")}
    return WeightsDescription(
        path=str(weights.path),
        network=network,
        layers=parameter_shapes(network, layers[-1]),
        sha256=_hash_file(weights.path, "sha256"),
        identity=identity(load(weights, network, layers[-1])),
        known=next((KNOWN[digest] for digest in digests if digest in KNOWN), None),
    )


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], dtype: str = "float32") -> None:
    """Convert a weights file to the format of another file's suffix.

    If the conversion fails, a file that the target's name had before remains as it was.

    Args:
        source: A weights file, or `random:SEED` (of VGG16).
        target: The file to write; its suffix is `.npy`, `.h5` or `.safetensors`.
        dtype: `float32`, or `float16` to halve the file.

    Raises:
        WeightsError: The source is not a weights file, the target's suffix is unknown, or a number is too large for
            float16.
    """
    if dtype not in ("float32", "float16"):
        raise WeightsError(f"Weights are written as float32 or float16. Received: {dtype}.")
    weights, path = find(os.fspath(source)), Path(target).absolute()
    layers = stored_layers(weights.path) if weights.path else list(parameter_shapes("vgg16"))
    network = network_of(layers)
    metadata = {"network": network, "licence": LICENCE if weights.path else "none: random numbers"}
    stored = metadata_of(weights.path) if weights.path else {}
    metadata |= {name: stored[name] for name in _KEPT_METADATA if name in stored}
    metadata["source"] = f"sha256:{_hash_file(weights.path, 'sha256')}" if weights.path else weights.name
    scratch = path.with_name(f"_tmp-{uuid.uuid4().hex}{path.suffix}")
    try:
        write(scratch, load(weights, network, layers[-1]), dtype, metadata)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _hash_file(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _existing_file(name: str, origin: str) -> Path:
    if ":/" in name:
        raise WeightsError(f"The weights' name{origin} looks like a URL: give a path.")  # a secret may be in it
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}{origin}: check its name.")
    return path


def _draw_parameters(seed: int, shapes: dict[str, Any]) -> Iterator[Parameters]:
    """Draw He-normal kernels (arXiv 1502.01852, equation 10) and zero biases; they are equal on every machine."""
    random = np.random.default_rng(seed)
    for name, (kernel_shape, bias_shape) in shapes.items():
        kernel = random.standard_normal(kernel_shape, np.float32)
        kernel *= np.float32(np.sqrt(2 / np.prod(kernel_shape[:-1])))
        yield name, kernel, np.zeros(bias_shape, np.float32)
