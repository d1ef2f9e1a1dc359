"""Reads and writes the files that VGG's weights come in: the original `.npy`, Keras' published `.h5`, and
`.safetensors`.

Nothing in a file is ever run: the pickle in a `.npy` goes through an unpickler that knows arrays alone, and links in
a `.h5` are not followed. Shapes are checked before arrays are read.
"""

from __future__ import annotations

import codecs
import json
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.network import NETWORKS, Parameters, Shapes, parameter_shapes

_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}  # as safetensors names them
_KERNEL, _BIAS = "kernel", "bias"


class WeightsError(ValueError):
    """Weights that cannot be found, or a file that does not hold what the network needs."""


def _check(path: Path, name: str, kernel: Any, bias: Any, shapes: Shapes) -> None:
    """Refuses arrays, or HDF5 datasets that are not read yet, that are not what a layer takes."""
    _check_shapes(path, name, (kernel.shape, bias.shape), shapes)
    if kernel.dtype.kind != "f" or bias.dtype.kind != "f":
        raise WeightsError(
            f"Layer {name} in {path} should hold floating-point numbers. Received: {kernel.dtype}, {bias.dtype}."
        )


def _check_shapes(path: Path, name: str, received: tuple[tuple[int, ...], ...], shapes: Shapes) -> None:
    if received != shapes:
        raise WeightsError(
            f"Layer {name} in {path} should have the shapes {_words(shapes)}. Received: {_words(received)}."
        )


def _words(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in shapes)


def read_npy(path: Path, layers: dict[str, Shapes]) -> Iterator[Parameters]:
    """Reads the original layout: a pickled dict from a layer's name to its kernel and bias."""
    table = _npy_table(path)
    held = sorted(table)
    table = {name: table[name] for name in layers if name in table}  # the others need not stay in memory
    for name, shapes in layers.items():
        if name not in table:
            raise WeightsError(f"{path} has no layer {name}; it has {', '.join(held) or 'none'}.")
        if len(table[name]) != 2:
            raise WeightsError(f"Layer {name} in {path} should be a kernel and a bias. Received: {len(table[name])}.")
        kernel, bias = table.pop(name)
        _check(path, name, kernel, bias, shapes)
        yield name, kernel, bias


def _npy_table(path: Path) -> dict[str, list[NDArray[Any]]]:
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
        return {_text(name): [part.array for part in parts] for name, parts in content.array.item().items()}
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a broken pickle can raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} is not a file of VGG weights: {reason}.") from None


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


def read_h5(path: Path, layers: dict[str, Shapes]) -> Iterator[Parameters]:
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
                yield name, _mapped(kernel, path), bias[()]
    except WeightsError:
        raise
    except (OSError, RuntimeError, KeyError, AttributeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")
        raise WeightsError(f"{path} is not a readable file of Keras weights: {reason}.") from None


def _mapped(dataset: Any, path: Path) -> NDArray[Any]:
    """An HDF5 dataset as a view of the file where its numbers lie there as they are, else as a copy."""
    import h5py

    offset = dataset.id.get_offset()
    # numpy has no name for some of HDF5's number types (bfloat16): the library turns them into others as it reads.
    is_numpys = dataset.id.get_type() == h5py.h5t.py_create(dataset.dtype)
    if offset is None or dataset.chunks is not None or not is_numpys:
        return dataset[()]
    return np.memmap(path, dataset.dtype, "r", offset, dataset.shape)


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


def read_safetensors(path: Path, layers: dict[str, Shapes]) -> Iterator[Parameters]:
    """Reads `LAYER.kernel` and `LAYER.bias`, in float32 or float16."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass  # the library has checked the header, so that it can be trusted below
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        for name, shapes in layers.items():
            keys = f"{name}.{_KERNEL}", f"{name}.{_BIAS}"
            if not set(keys) <= set(header):
                held = sorted({key.rpartition(".")[0] for key in header} - {""})
                raise WeightsError(f"{path} has no layer {name}; it has {', '.join(held) or 'none'}.")
            entries = [header[key] for key in keys]
            _check_shapes(path, name, tuple(tuple(entry["shape"]) for entry in entries), shapes)
            if not {entry["dtype"] for entry in entries} <= set(_DTYPES):
                raise WeightsError(
                    f"Layer {name} in {path} should hold numbers of type {', '.join(_DTYPES)}. "
                    f"Received: {', '.join(entry['dtype'] for entry in entries)}."
                )
            kernel, bias = (
                # A view of the file, where the library would make a copy.
                np.memmap(
                    path, _DTYPES[entry["dtype"]], "r", 8 + length + entry["data_offsets"][0], tuple(entry["shape"])
                )
                for entry in entries
            )
            yield name, kernel, bias
    except WeightsError:
        raise
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} is not a readable file of weights: {reason}.") from None


READERS: dict[str, Callable[[Path, dict[str, Shapes]], Iterator[Parameters]]] = {
    ".npy": read_npy,
    ".h5": read_h5,
    ".safetensors": read_safetensors,
}


def stored_layers(path: Path) -> list[str]:
    """The layers with parameters that a file holds, in the network's order.

    Raises:
        WeightsError: It is no weights file, or a layer between two others is missing.
    """
    known = {name for network in NETWORKS for name in parameter_shapes(network)}
    try:
        if path.suffix == ".npy":
            held = set(_npy_table(path))
        elif path.suffix == ".h5":
            import h5py

            with h5py.File(path, "r") as file:
                held = {name for name in known if keras_name(name) in file}
        elif path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as file:
                held = {key.rpartition(".")[0] for key in file.keys()}  # noqa: SIM118  it is no dict
        else:
            raise WeightsError(f"{path} is not a weights file: its name must end in {', '.join(READERS)}.")
    except WeightsError:
        raise
    except Exception as error:  # each library has kinds of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} is not a readable file of weights: {reason}.") from None
    network = network_of(held)
    found = [name for name in parameter_shapes(network) if name in held]
    if not found or found != list(parameter_shapes(network))[: len(found)]:
        missing = next(name for name in parameter_shapes(network) if name not in held)
        raise WeightsError(f"{path} has no layer {missing}; it has {', '.join(sorted(held)) or 'none'}.")
    return found


def network_of(layers: Iterable[str]) -> str:
    """Which network layers belong to: only VGG19 has blocks of four convolutions."""
    return "vgg19" if set(layers) & {"conv3_4", "conv4_4", "conv5_4"} else "vgg16"


def write(path: Path, parameters: Iterable[Parameters], store: str, about: dict[str, str]) -> None:
    """Writes a weights file, in the format that its name ends in.

    Args:
        path: The file.
        parameters: Name, kernel and bias of each layer.
        store: `float32`, or `float16` to halve the file.
        about: What is written beside the arrays, where the format has a place for it.

    Raises:
        WeightsError: The name ends in none of the formats, or a number does not fit into float16.
    """
    writers = {".npy": _write_npy, ".h5": _write_h5, ".safetensors": _write_safetensors}
    if path.suffix not in writers:
        raise WeightsError(f"{path} cannot be written: its name must end in {', '.join(writers)}.")
    writers[path.suffix](path, _cast(parameters, store), about)


def _cast(parameters: Iterable[Parameters], store: str) -> Iterator[Parameters]:
    for name, kernel, bias in parameters:
        with np.errstate(over="ignore"):
            arrays = kernel.astype(store), bias.astype(store)
        if not all(np.isfinite(array).all() for array in arrays):
            raise WeightsError(f"Layer {name} holds numbers that {store} cannot: write it as float32.")
        yield name, *arrays


def _write_npy(path: Path, parameters: Iterable[Parameters], about: dict[str, str]) -> None:
    table = {name: [kernel, bias] for name, kernel, bias in parameters}
    with path.open("wb") as file:
        np.save(file, np.array(table, object), allow_pickle=True)  # written here, never read so


def _write_h5(path: Path, parameters: Iterable[Parameters], about: dict[str, str]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update(about)
        names = []
        for name, kernel, bias in parameters:
            layer = keras_name(name)
            group = file.create_group(layer)
            stored = [f"{layer}_W_1:0", f"{layer}_b_1:0"]
            for key, array in zip(stored, (kernel, bias), strict=True):
                group.create_dataset(key, data=array)
            group.attrs["weight_names"] = [key.encode() for key in stored]
            names.append(layer.encode())
        file.attrs["layer_names"] = names


def _write_safetensors(path: Path, parameters: Iterable[Parameters], about: dict[str, str]) -> None:
    from safetensors.numpy import save_file

    arrays: dict[str, NDArray[np.floating]] = {}
    for name, kernel, bias in parameters:
        arrays |= {f"{name}.{_KERNEL}": kernel, f"{name}.{_BIAS}": bias}
    path.touch()
    mode = path.stat().st_mode
    save_file(arrays, path, about)
    path.chmod(mode)  # the library lets only the owner read it
