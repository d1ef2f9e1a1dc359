"""Keras' published layout of VGG's weights: `.h5` with groups `block1_conv1` ... `fc1`, `predictions`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.formats.errors import WeightsError, check_arrays, check_part_count, missing_layer, unreadable
from tensorflow_vgg.formats.unpickler import text
from tensorflow_vgg.network import Parameters, Shapes


def keras_name(layer: str) -> str:
    """Return a layer's name in Keras' files: `block1_conv2` for `conv1_2`, `fc1` for `fc6`."""
    if layer.startswith("conv"):
        return f"block{layer[4]}_conv{layer[6]}"
    return {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}[layer]


def read_h5(path: Path, layers: dict[str, Shapes]) -> Iterator[Parameters]:
    """Read layers one after the other; each group's attribute `weight_names` names its kernel and its bias.

    Args:
        path: The file.
        layers: The shapes of kernel and bias of each layer to read.

    Yields:
        Name, kernel and bias, in the stored precision; a kernel is a view of the file where possible.

    Raises:
        WeightsError: The file is not in this layout, or lacks a layer, or has one of another shape.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            for name in layers:
                group = _open_member(file, keras_name(name), path)
                stored = group.attrs.get("weight_names", ())
                check_part_count(path, keras_name(name), len(stored))
                kernel, bias = (_open_member(group, text(part), path) for part in stored)
                check_arrays(path, name, kernel, bias, layers[name])
                yield name, _map_or_read(kernel, path), bias[()]
    except WeightsError:
        raise
    except (OSError, RuntimeError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise unreadable(path, "a readable file of Keras weights", error) from None


def h5_layers(path: Path, candidates: Iterable[str]) -> set[str]:
    """Return those of some layers that a file has."""
    import h5py

    with h5py.File(path, "r") as file:
        return {name for name in candidates if keras_name(name) in file}


def h5_metadata(path: Path) -> dict[str, str]:
    """Return the attributes of a file that are text."""
    import h5py

    with h5py.File(path, "r") as file:
        return {name: value for name, value in file.attrs.items() if isinstance(value, str)}


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


def _open_member(group: Any, name: str, path: Path) -> Any:
    """Open a member of an HDF5 group that is stored in the file itself; links out of the file are not followed."""
    import h5py

    for part in name.split("/"):
        link = group.get(part, getlink=True)
        if link is None:
            raise missing_layer(path, name, group)
        if not isinstance(link, h5py.HardLink):
            raise WeightsError(f"{name} in {path} is a link, and links are not followed: store the arrays in the file.")
        group = group[part]
        if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
            raise WeightsError(f"{name} in {path} refers to other files, which are not read: store its numbers here.")
    return group


def _map_or_read(dataset: Any, path: Path) -> NDArray[Any]:
    """Return an HDF5 dataset as a memory map where it is stored in one piece, which saves a copy; else read it."""
    import h5py

    offset = dataset.id.get_offset()
    # NumPy has no equivalent of some HDF5 types, such as bfloat16: there h5py converts the numbers as it reads them.
    has_numpy_type = dataset.id.get_type() == h5py.h5t.py_create(dataset.dtype)
    if offset is None or dataset.chunks is not None or not has_numpy_type:
        return dataset[()]
    return np.memmap(path, dataset.dtype, "r", offset, dataset.shape)
