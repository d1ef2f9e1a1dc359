"""VGG's weights as `.safetensors`: arrays `conv1_1.kernel`, `conv1_1.bias`, ..., with metadata in the header."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.formats.errors import WeightsError, check_shapes, missing_layer, open_regular, unreadable
from tensorflow_vgg.formats.safetensors_header import Entry, Header, read_header
from tensorflow_vgg.network import Parameters, Shapes

_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}  # safetensors' names, and NumPy's
_KERNEL, _BIAS = "kernel", "bias"


def read_safetensors(path: Path, layers: dict[str, Shapes]) -> Iterator[Parameters]:
    """Read layers one after the other, each as a memory map.

    Args:
        path: The file.
        layers: The shapes of kernel and bias of each layer to read.

    Yields:
        Name, kernel and bias, in the stored precision (float16, float32 or float64).

    Raises:
        WeightsError: The file is not in this layout, or lacks a layer, or has one of another shape.
    """
    try:
        with open_regular(path) as file:
            header = read_header(file)
            for name, shapes in layers.items():
                keys = f"{name}.{_KERNEL}", f"{name}.{_BIAS}"
                if not set(keys) <= set(header.entries):
                    raise missing_layer(path, name, _layers_in(header))
                kernel, bias = (header.entries[key] for key in keys)
                check_shapes(path, name, (kernel.shape, bias.shape), shapes)
                _check_dtypes(path, name, [kernel.dtype, bias.dtype])
                yield name, _map(file, kernel), _map(file, bias)
    except WeightsError:
        raise
    except (OSError, ValueError) as error:
        raise unreadable(path, "a readable file of weights", error) from None


def safetensors_layers(path: Path) -> set[str]:
    """Return the names of the layers in a file.

    Raises:
        OSError, ValueError: The file cannot be read, or is not in this layout.
    """
    with open_regular(path) as file:
        return _layers_in(read_header(file))


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Return the metadata in a file's header.

    Raises:
        OSError, ValueError: The file cannot be read, or is not in this layout.
    """
    with open_regular(path) as file:
        return read_header(file).metadata


def write_safetensors(path: Path, parameters: Iterable[Parameters], metadata: dict[str, str]) -> None:
    """Write layers; `metadata` goes into the header.

    Raises:
        OSError: The file cannot be written.
    """
    arrays: dict[str, NDArray[np.floating]] = {}
    for name, kernel, bias in parameters:
        arrays |= {f"{name}.{_KERNEL}": kernel, f"{name}.{_BIAS}": bias}
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags | os.O_CREAT, 0o664), "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    save_arrays(arrays, path, metadata)
    with open(os.open(path, flags), "rb") as file:
        os.fchmod(file.fileno(), mode)  # the library makes the file readable by its owner alone


def save_arrays(arrays: dict[str, NDArray[Any]], path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
    """Write a `.safetensors` file.

    Raises:
        OSError: It cannot be written: the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(arrays, path, metadata)
    except SafetensorError as error:  # the library's only error, also for a full disk
        number = re.search(r"\(os error (\d+)\)", str(error))
        if not number:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(path)) from None


def _layers_in(header: Header) -> set[str]:
    return {key.rpartition(".")[0] for key in header.entries} - {""}


def _check_dtypes(path: Path, name: str, dtypes: list[str]) -> None:
    if not set(dtypes) <= set(_DTYPES):
        raise WeightsError(
            f"Layer {name} in {path} should hold numbers of type {', '.join(_DTYPES)}. Received: {', '.join(dtypes)}."
        )


def _map(file: IO[bytes], entry: Entry) -> NDArray[Any]:
    """Return an array as a view of the file; the library would copy it."""
    return np.memmap(file, _DTYPES[entry.dtype], "r", entry.offset, entry.shape)
