"""Which paths are entries of a list that does not fit in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_NAMES_AT_ONCE = 1_000_000  # entries in memory, some hundred bytes each


def are_named(
    paths: pa.Array | pa.ChunkedArray, names: Iterable[pa.Array], *, names_at_once: int = _NAMES_AT_ONCE
) -> pa.Array:
    """Return whether each of some paths is among the entries of a list, which are read once: bool [n].

    Args:
        paths: The paths: string [n], all in memory.
        names: The entries, in any order.
        names_at_once: Entries in memory: all paths are compared with so many at a time.
    """
    found = np.zeros(len(paths), bool)
    for chunk in _large_chunks(names, names_at_once):
        found |= pc.is_in(paths, chunk).to_numpy(zero_copy_only=False)
    return pa.array(found)


def _large_chunks(columns: Iterable[pa.Array], size: int) -> Iterator[pa.Array]:
    chunk: list[pa.Array] = []
    for column in columns:
        chunk.append(column)
        if sum(map(len, chunk)) >= size:
            yield pa.concat_arrays(chunk)
            chunk = []
    if chunk:
        yield pa.concat_arrays(chunk)
