"""Reading a few rows of a run, wherever they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.dataset.run_folder import Run


class RowReader:
    """Reads rows by their numbers, which are counted over all shards: only the row groups that they are in.

    Args:
        run: Codes or predictions.

    Attributes:
        groups: Its row groups.

    Raises:
        InputError: A file is not what the manifest and the other files say.
    """

    def __init__(self, run: Run):
        self._run, self.groups = run, run.row_groups()
        self._starts = np.cumsum([0, *(group.rows for group in self.groups)])

    def take(self, rows: NDArray[np.int_], columns: Sequence[str]) -> pa.Table:
        """Return columns of rows, in the order of `rows`; at least one row is wanted."""
        distinct, position = np.unique(rows, return_inverse=True)
        bounds = np.searchsorted(distinct, self._starts)
        parts = []
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            group = self.groups[number]
            read = pa.Table.from_batches(self._run.read_shard(group.shard, columns, group.number))
            parts.append(read.take(distinct[bounds[number] : bounds[number + 1]] - self._starts[number]))
        return pa.concat_tables(parts).take(position)
