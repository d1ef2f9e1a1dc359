"""The header of a `.safetensors` file, checked completely before it is used (safetensors' README, "Format")."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import IO, Any, TypeGuard

_LENGTH_BYTES = 8
# An entry takes about 100 bytes, so this is room for 10,000 arrays. The library allows a hundred times as much, which
# takes seconds and gigabytes to parse.
_MAX_HEADER_BYTES = 1 << 20
_MAX_DIMENSIONS = 32
_METADATA = "__metadata__"
_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


@dataclass(frozen=True)
class Entry:
    """An array in a file.

    Attributes:
        dtype: Its type, as safetensors names it.
        shape: Its shape.
        offset: Where in the file it begins, in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        """The size in bytes."""
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Header:
    """A file's header: its arrays by name, and its metadata."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def read_header(file: IO[bytes]) -> Header:
    """Read and check the header of a file.

    Raises:
        ValueError: The header is too long or damaged, names an array twice, or its arrays do not fill the rest of the
            file, one after the other without gaps.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    start = _LENGTH_BYTES + length
    if start > size:
        raise ValueError("its header is cut off")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"its header has more than {_MAX_HEADER_BYTES} bytes")
    try:
        content = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("its header is no text") from None
    if not isinstance(content, dict):
        raise ValueError("its header is not a JSON object")
    metadata = content.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text by name")
    entries = {name: _entry(name, value, start) for name, value in content.items()}
    _check_layout(entries, start, size)
    return Header(entries, metadata)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("its header has a name twice")
    return result


def _entry(name: str, value: Any, start: int) -> Entry:
    value = value if isinstance(value, dict) else {}
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets", ())
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ValueError(f"the type of {name[:100]} is unknown")
    if not _are_numbers(shape) or not _are_numbers(offsets) or len(offsets) != 2 or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"the shape or the place of {name[:100]} is not valid")
    entry = Entry(dtype, tuple(shape), start + offsets[0])
    if entry.bytes != offsets[1] - offsets[0]:
        raise ValueError(f"the shape of {name[:100]} does not fit its bytes")
    return entry


def _are_numbers(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 1 << 63 for each in value)


def _check_layout(entries: dict[str, Entry], start: int, size: int) -> None:
    end = start
    for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.bytes)):
        if entry.offset != end:
            raise ValueError("its arrays overlap, or have gaps between them")
        end += entry.bytes
    if end != size:
        raise ValueError("its arrays do not end where the file does")
