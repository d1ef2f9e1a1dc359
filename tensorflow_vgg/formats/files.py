"""Weights files of any format: a file's suffix decides which reader and which writer is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from tensorflow_vgg.formats.errors import WeightsError, missing_layer, unreadable
from tensorflow_vgg.formats.keras_h5 import h5_layers, h5_metadata, read_h5, write_h5
from tensorflow_vgg.formats.npy import npy_layers, read_npy, write_npy
from tensorflow_vgg.formats.safetensors_file import (
    read_safetensors,
    safetensors_layers,
    safetensors_metadata,
    write_safetensors,
)
from tensorflow_vgg.network import NETWORKS, Parameters, Shapes, parameter_shapes

READERS: dict[str, Callable[[Path, dict[str, Shapes]], Iterator[Parameters]]] = {
    ".npy": read_npy,
    ".h5": read_h5,
    ".safetensors": read_safetensors,
}
WRITERS: dict[str, Callable[[Path, Iterable[Parameters], dict[str, str]], None]] = {
    ".npy": write_npy,
    ".h5": write_h5,
    ".safetensors": write_safetensors,
}


def metadata_of(path: Path) -> dict[str, str]:
    """Return what `write` stored with the arrays; nothing of `.npy`, which has no place for it.

    Raises:
        WeightsError: The file is not a weights file.
    """
    if path.suffix not in READERS:
        raise unknown_suffix(path)
    readers = {".h5": h5_metadata, ".safetensors": safetensors_metadata}
    try:
        return readers[path.suffix](path) if path.suffix in readers else {}
    except Exception as error:  # each library has its own exceptions
        raise unreadable(path, "a readable file of weights", error) from None


def stored_layers(path: Path) -> list[str]:
    """Return the layers with parameters that a file holds, in the network's order.

    Raises:
        WeightsError: The file is not a weights file, or lacks a layer before one that it has.
    """
    stored = stored_names(path)
    expected = list(parameter_shapes(network_of(stored)))
    found = [name for name in expected if name in stored]
    if not found or found != expected[: len(found)]:
        raise missing_layer(path, next(name for name in expected if name not in stored), stored)
    return found


def stored_names(path: Path) -> set[str]:
    """Return the names of the layers that a file holds; of `.h5`, those of a VGG. No array is read.

    Raises:
        WeightsError: The file is not a weights file.
    """
    known = {name for network in NETWORKS for name in parameter_shapes(network)}
    try:
        if path.suffix == ".npy":
            return npy_layers(path)
        if path.suffix == ".h5":
            return h5_layers(path, known)
        if path.suffix == ".safetensors":
            return safetensors_layers(path)
        raise unknown_suffix(path)
    except WeightsError:
        raise
    except Exception as error:  # each library has its own exceptions
        raise unreadable(path, "a readable file of weights", error) from None


def network_of(layers: Iterable[str]) -> str:
    """Return the network that layers belong to: only VGG19 has blocks of four convolutions."""
    return "vgg19" if set(layers) & {"conv3_4", "conv4_4", "conv5_4"} else "vgg16"


def unknown_suffix(path: Path) -> WeightsError:
    """Return the error for a file whose suffix is not one of a weights file."""
    return WeightsError(f"{path} is not a weights file: its name must end in {', '.join(READERS)}.")


def write(path: Path, parameters: Iterable[Parameters], dtype: str, metadata: dict[str, str]) -> None:
    """Write a weights file in the format of its suffix.

    Args:
        path: The file.
        parameters: Name, kernel and bias of each layer.
        dtype: `float32`, or `float16` to halve the file.
        metadata: What is stored with the arrays, where the format has a place for it.

    Raises:
        WeightsError: The suffix is unknown, or a number is too large for float16.
    """
    if path.suffix not in WRITERS:
        raise WeightsError(f"{path} cannot be written: its name must end in {', '.join(WRITERS)}.")
    WRITERS[path.suffix](path, _cast(parameters, dtype), metadata)


def _cast(parameters: Iterable[Parameters], dtype: str) -> Iterator[Parameters]:
    for name, kernel, bias in parameters:
        with np.errstate(over="ignore"):
            arrays = kernel.astype(dtype), bias.astype(dtype)
        if not all(np.isfinite(array).all() for array in arrays):
            raise WeightsError(f"Layer {name} has numbers that {dtype} cannot hold: write it as float32.")
        yield name, *arrays
