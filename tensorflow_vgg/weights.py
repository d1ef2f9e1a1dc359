"""Finds and reads VGG's weights: the original `.npy`, Keras' published `.h5`, or drawn at random.

Nothing in a weights file is ever run: the pickle in a `.npy` goes through an unpickler that knows arrays alone,
and links in a `.h5` are not followed.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.download import Published, cached, fetch
from tensorflow_vgg.network import parameter_shapes

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

_Shapes = dict[str, tuple[tuple[int, ...], tuple[int]]]
Parameters = tuple[str, NDArray[np.float32], NDArray[np.float32]]


class WeightsError(ValueError):
    """Weights that cannot be found, or a file that does not hold what the network needs."""


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

    @property
    def is_random(self) -> bool:
        """Whether they were never trained, so that what is made with them says nothing about photos."""
        return self.seed is not None


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
    readers = {".npy": _read_npy, ".h5": _read_h5}
    if path.suffix not in readers:
        raise WeightsError(f"{path} is not a weights file: its name must end in .npy or .h5.")
    for name, kernel, bias in readers[path.suffix](path, shapes):
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


def _existing(name: str, origin: str) -> Path:
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}{origin}: check its name.")
    return path


def _check(path: Path, name: str, kernel: Any, bias: Any, shapes: tuple[tuple[int, ...], ...]) -> None:
    """Refuses arrays, or HDF5 datasets that are not read yet, that are not what a layer takes."""
    if (kernel.shape, bias.shape) != shapes:
        raise WeightsError(
            f"Layer {name} in {path} should have the shapes {_words(shapes)}. "
            f"Received: {_words((kernel.shape, bias.shape))}."
        )
    if kernel.dtype.kind != "f" or bias.dtype.kind != "f":
        raise WeightsError(
            f"Layer {name} in {path} should hold floating-point numbers. Received: {kernel.dtype}, {bias.dtype}."
        )


def _words(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in shapes)


def _draw(seed: int, shapes: dict[str, Any]) -> Iterator[Parameters]:
    """He-normal kernels (arXiv 1502.01852, equation 10) and zero biases, equal on every machine."""
    random = np.random.default_rng(seed)
    for name, (kernel_shape, bias_shape) in shapes.items():
        kernel = random.standard_normal(kernel_shape, np.float32)
        kernel *= np.float32(np.sqrt(2 / np.prod(kernel_shape[:-1])))
        yield name, kernel, np.zeros(bias_shape, np.float32)


def _read_npy(path: Path, layers: _Shapes) -> Iterator[Parameters]:
    """Reads the seed's layout: a pickled dict from a layer's name to its kernel and bias."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, _, dtype = header[version](file)
            if shape != () or dtype != np.dtype(object):
                raise ValueError(f"it holds an array of {dtype} with shape {shape}")
            content = _ArrayUnpickler(file).load()
        table = {_text(name): pair for name, pair in content.array.item().items()}
        arrays = {name: [part.array for part in table[name]] for name in layers if name in table}
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a broken pickle can raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} is not a file of VGG weights: {reason}.") from None
    for name in layers:
        if name not in arrays:
            raise WeightsError(f"{path} has no layer {name}; it has {', '.join(sorted(table)) or 'none'}.")
        if len(arrays[name]) != 2:
            raise WeightsError(f"Layer {name} in {path} should be a kernel and a bias. Received: {len(arrays[name])}.")
        kernel, bias = arrays[name]
        _check(path, name, kernel, bias, layers[name])
        yield name, kernel, bias


class _Dtype:
    """Stands in for `numpy.dtype` in a pickle: a name and a byte order."""

    def __init__(self, code: str | bytes, *_: Any):
        self.code = _text(code)
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1])

    @property
    def real(self) -> np.dtype[Any]:
        """The type that is meant; only plain floating-point numbers are known."""
        if self.code not in ("f2", "f4", "f8"):
            raise ValueError(f"it holds numbers of type {self.code}, not floating-point ones")
        return np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]


class _Array:
    """Stands in for `numpy.ndarray` in a pickle: a shape, a type and plain bytes, or a list of objects."""

    array: NDArray[Any]

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, list):
            self.array = np.empty(len(content), object)
            self.array[:] = content
        else:
            data = content if isinstance(content, bytes) else content.encode("latin1")
            self.array = np.frombuffer(data, dtype.real).reshape(shape, order="F" if fortran else "C")


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    result = _Array()
    result.array = np.frombuffer(data, dtype.real).reshape(shape, order="F" if order == "F" else "C")
    return result


class _ArrayUnpickler(pickle.Unpickler):
    """Knows what a pickled array names, and gives functions of this module for it; all else is refused.

    `encoding="bytes"` leaves Python 2's strings as they are, so that the arrays in them are not copied.
    """

    _KNOWN = {  # noqa: RUF012
        ("multiarray", "_reconstruct"): _Array,
        ("numeric", "_frombuffer"): _from_buffer,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): lambda text, encoding: codecs.latin_1_encode(text)[0],
    }

    def __init__(self, file: IO[bytes]):
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        """Looks up one of the few names that a pickled array needs."""
        short = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        if (short, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"its pickle names {module}.{name}, which no array needs")
        return self._KNOWN[short, name]


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _read_h5(path: Path, layers: _Shapes) -> Iterator[Parameters]:
    """Reads Keras' published layout: groups `block1_conv1` ... `fc1`, `predictions`, each naming its arrays."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            for name in layers:
                group = _plain(file, keras_name(name), path)
                stored = group.attrs.get("weight_names", ())
                if len(stored) != 2:
                    raise WeightsError(
                        f"Layer {keras_name(name)} in {path} should be a kernel and a bias. Received: {len(stored)}."
                    )
                kernel, bias = (_plain(group, _text(part), path) for part in stored)
                _check(path, name, kernel, bias, layers[name])
                yield name, kernel[()], bias[()]
    except WeightsError:
        raise
    except (OSError, RuntimeError, KeyError, AttributeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")
        raise WeightsError(f"{path} is not a readable file of Keras weights: {reason}.") from None


def keras_name(layer: str) -> str:
    """The name of a layer in Keras' files: `conv1_2` is `block1_conv2` there, `fc6` is `fc1`."""
    if layer.startswith("conv"):
        return f"block{layer[4]}_conv{layer[6]}"
    return {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}[layer]


def _plain(group: Any, name: str, path: Path) -> Any:
    """Opens a member of an HDF5 group that lies in the file itself: no link is followed out of it."""
    import h5py

    for part in name.split("/"):
        link = group.get(part, getlink=True)
        if link is None:
            raise WeightsError(f"{path} has no layer {name}; it has {', '.join(sorted(group)) or 'none'}.")
        if not isinstance(link, h5py.HardLink):
            raise WeightsError(f"{name} in {path} is a link to somewhere else, and links are not followed.")
        group = group[part]
        if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
            raise WeightsError(f"{name} in {path} keeps its numbers in other files, which are not read.")
    return group
