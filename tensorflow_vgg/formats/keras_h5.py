"""Keras' published layout of VGG's weights: `.h5` with groups `block1_conv1` ... `fc1`, `predictions`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tensorflow_vgg.formats.h5_messages import keras_name
from tensorflow_vgg.formats.h5_process import read_layers, read_object
from tensorflow_vgg.network import Parameters, Shapes


def read_h5(path: Path, layers: dict[str, Shapes]) -> Iterator[Parameters]:
    """Read layers one after the other.

    HDF5's library reads the file in a process of its own: see `h5_process`.

    Args:
        path: The file.
        layers: The shapes of kernel and bias of each layer to read.

    Yields:
        Name, kernel and bias, in the stored precision; views of the file where possible.

    Raises:
        WeightsError: The file is not in this layout, or lacks a layer, or has one of another shape.
    """
    yield from read_layers(path, layers)


def h5_layers(path: Path, candidates: Iterable[str]) -> set[str]:
    """Return those of some layers that a file has.

    Raises:
        WeightsError: The file is not an HDF5 file.
    """
    return set(map(str, read_object(path, {"candidates": sorted(candidates)}, "found")))


def h5_metadata(path: Path) -> dict[str, str]:
    """Return the attributes of a file that are text.

    Raises:
        WeightsError: The file is not an HDF5 file.
    """
    found = read_object(path, {}, "attributes")
    return {name: value for name, value in found.items() if isinstance(value, str)}


def write_h5(path: Path, parameters: Iterable[Parameters], metadata: dict[str, str]) -> None:
    """Write layers so that `keras.applications` loads them, too; `metadata` becomes the file's attributes."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update(metadata)
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
