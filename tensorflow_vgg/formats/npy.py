"""The original layout of VGG's weights: a `.npy` file with a pickled dict from a layer's name to [kernel, bias]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.formats.errors import check_arrays, check_part_count, missing_layer, unreadable
from tensorflow_vgg.formats.unpickler import ArrayUnpickler, text
from tensorflow_vgg.network import Parameters, Shapes


def read_npy(path: Path, layers: dict[str, Shapes]) -> Iterator[Parameters]:
    """Read layers one after the other; the file itself is read completely, since its arrays are one pickle.

    Args:
        path: The file, written by Python 2 or 3.
        layers: The shapes of kernel and bias of each layer to read.

    Yields:
        Name, kernel and bias, in the stored precision.

    Raises:
        WeightsError: The file is not in this layout, or lacks a layer, or has one of another shape.
    """
    table = _load_table(path)
    stored = sorted(table)
    table = {name: table[name] for name in layers if name in table}  # frees the memory of the others
    for name, shapes in layers.items():
        if name not in table:
            raise missing_layer(path, name, stored)
        check_part_count(path, name, len(table[name]))
        kernel, bias = table.pop(name)
        check_arrays(path, name, kernel, bias, shapes)
        yield name, kernel, bias


def npy_layers(path: Path) -> set[str]:
    """Return the names of the layers in a file.

    Raises:
        WeightsError: The file is not in this layout.
    """
    return set(_load_table(path))


def write_npy(path: Path, parameters: Iterable[Parameters], metadata: dict[str, str]) -> None:
    """Write layers; `metadata` is left out, since the layout has no place for it."""
    table = {name: [kernel, bias] for name, kernel, bias in parameters}
    with path.open("wb") as file:
        np.save(file, np.array(table, object), allow_pickle=True)  # only for writing: see ArrayUnpickler


def _load_table(path: Path) -> dict[str, list[NDArray[Any]]]:
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, _, dtype = read_header[version](file)
            if shape != () or dtype != np.dtype(object):
                raise ValueError(f"it holds an array of {dtype} with shape {shape}")
            content = ArrayUnpickler(file).load()
        return {text(name): [part.array for part in parts] for name, parts in content.array.item().items()}
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a broken pickle can raise any exception
        raise unreadable(path, "a file of VGG weights", error) from None
