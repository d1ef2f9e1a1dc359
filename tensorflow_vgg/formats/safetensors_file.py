"""VGG's weights as `.safetensors`: arrays `conv1_1.kernel`, `conv1_1.bias`, ..., with metadata in the header."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.formats.errors import WeightsError, check_shapes, missing_layer, unreadable
from tensorflow_vgg.network import Parameters, Shapes

_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}  # safetensors' names, and NumPy's
_KERNEL, _BIAS = "kernel", "bias"
_LENGTH_BYTES = 8  # a file begins with its header's length (safetensors' README, "Format")


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
    from safetensors import SafetensorError

    try:
        header, start = _read_header(path)
        for name, shapes in layers.items():
            keys = f"{name}.{_KERNEL}", f"{name}.{_BIAS}"
            if not set(keys) <= set(header):
                raise missing_layer(path, name, {key.rpartition(".")[0] for key in header} - {""})
            entries = [header[key] for key in keys]
            check_shapes(path, name, tuple(tuple(entry["shape"]) for entry in entries), shapes)
            _check_dtypes(path, name, [entry["dtype"] for entry in entries])
            kernel, bias = (_map(path, entry, start) for entry in entries)
            yield name, kernel, bias
    except WeightsError:
        raise
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise unreadable(path, "a readable file of weights", error) from None


def safetensors_layers(path: Path) -> set[str]:
    """Return the names of the layers in a file."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return {key.rpartition(".")[0] for key in file.keys()}  # noqa: SIM118  `file` is not a dict


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Return the metadata in a file's header."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def write_safetensors(path: Path, parameters: Iterable[Parameters], metadata: dict[str, str]) -> None:
    """Write layers; `metadata` goes into the header.

    Raises:
        OSError: The file cannot be written.
    """
    arrays: dict[str, NDArray[np.floating]] = {}
    for name, kernel, bias in parameters:
        arrays |= {f"{name}.{_KERNEL}": kernel, f"{name}.{_BIAS}": bias}
    path.touch()
    mode = path.stat().st_mode
    save_arrays(arrays, path, metadata)
    path.chmod(mode)  # the library makes the file readable by its owner alone


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


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header, from an array's name to its entry, and the offset in bytes at which the arrays begin."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy"):
        pass  # the library has validated the header, so the offsets in it can be trusted
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        return json.loads(file.read(length)), _LENGTH_BYTES + length


def _check_dtypes(path: Path, name: str, dtypes: list[str]) -> None:
    if not set(dtypes) <= set(_DTYPES):
        raise WeightsError(
            f"Layer {name} in {path} should hold numbers of type {', '.join(_DTYPES)}. Received: {', '.join(dtypes)}."
        )


def _map(path: Path, entry: dict[str, Any], start: int) -> NDArray[Any]:
    """Return an array as a view of the file; the library would copy it."""
    return np.memmap(path, _DTYPES[entry["dtype"]], "r", start + entry["data_offsets"][0], tuple(entry["shape"]))
