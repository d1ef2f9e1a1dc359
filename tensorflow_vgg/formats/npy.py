"""The original layout of VGG's weights: a `.npy` file with a pickled dict from a layer's name to [kernel, bias]."""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from tensorflow_vgg.formats.errors import check_arrays, check_part_count, missing_layer, open_regular, unreadable
from tensorflow_vgg.formats.pickle_reader import PickleReader
from tensorflow_vgg.formats.pickled_arrays import PickledArray
from tensorflow_vgg.formats.pickled_strings import PickleError
from tensorflow_vgg.network import Parameters, Shapes

# The length of the header, in bytes, is the last part of what comes before it (NumPy's `numpy.lib.format`).
_LENGTH_BYTES = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}
_MAGIC_BYTES = 8
_MAX_HEADER_BYTES = 10_000  # as in NumPy


def read_npy(path: Path, layers: dict[str, Shapes]) -> Iterator[Parameters]:
    """Read layers one after the other.

    Args:
        path: The file, written by Python 2 or 3.
        layers: The shapes of kernel and bias of each layer to read.

    Yields:
        Name, kernel and bias, in the stored precision; views of the file where it stores the bytes as they are.

    Raises:
        WeightsError: The file is not in this layout, or lacks a layer, or has one of another shape.
    """
    table = _read_table(path)
    for name, shapes in layers.items():
        if name not in table:
            raise missing_layer(path, name, table)
        check_part_count(path, name, len(table[name]))
        kernel, bias = table[name]
        try:
            check_arrays(path, name, kernel, bias, shapes)
            arrays = kernel.to_numpy(), bias.to_numpy()
        except PickleError as error:
            raise unreadable(path, "a file of VGG weights", error) from None
        yield name, *arrays


def npy_layers(path: Path) -> set[str]:
    """Return the names of the layers in a file.

    Raises:
        WeightsError: The file is not in this layout.
    """
    return set(_read_table(path))


def write_npy(path: Path, parameters: Iterable[Parameters], metadata: dict[str, str]) -> None:
    """Write layers; `metadata` is left out, since the layout has no place for it."""
    table = {name: [kernel, bias] for name, kernel, bias in parameters}
    with path.open("wb") as file:
        np.save(file, np.array(table, object), allow_pickle=True)  # only for writing: see PickleReader


def _read_table(path: Path) -> dict[str, list[PickledArray]]:
    """Return the arrays of each layer; their numbers are not read yet."""
    try:
        with open_regular(path) as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        content = PickleReader(data, _check_header(data)).read()
        return _as_table(content)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped: ValueError
        raise unreadable(path, "a file of VGG weights", error) from None


def _check_header(data: memoryview) -> int:
    """Check that a file holds one object, and return where its pickle begins."""
    length_bytes = _LENGTH_BYTES.get(bytes(data[:_MAGIC_BYTES]))
    if length_bytes is None:
        raise ValueError("it does not begin as a .npy file of version 1 or 2")
    start = _MAGIC_BYTES + length_bytes
    length = int.from_bytes(data[_MAGIC_BYTES:start], "little")
    if length > min(_MAX_HEADER_BYTES, len(data) - start):
        raise ValueError("its header is cut off, or too long")
    try:
        header = io.BytesIO(length.to_bytes(2, "little") + data[start : start + length])
        shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    except Exception:  # NumPy parses the header as Python, which has many exceptions
        raise ValueError("its header is damaged") from None
    if shape != () or dtype != np.dtype(object):
        raise ValueError(f"it holds an array of {str(dtype)[:40]} with shape {str(shape)[:40]}")
    return start + length


def _as_table(content: object) -> dict[str, list[PickledArray]]:
    """Return the dict in an array of one object, if it is one of layers."""
    objects = content.content if isinstance(content, PickledArray) else None
    table = objects[0] if isinstance(objects, list) and len(objects) == 1 else None
    if not isinstance(table, dict):
        raise PickleError("its pickle is not a table of layers")
    for parts in table.values():
        if not isinstance(parts, list | tuple) or not all(isinstance(part, PickledArray) for part in parts):
            raise PickleError("its pickle has something else in place of a layer's arrays")
    return table
