"""The random order of an archive's photos, which their contents decide: an archive keeps it while it grows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK


def content_keys(digests: pa.Array) -> NDArray[np.uint64]:
    """Return the place of photos in the random order, uint64 [N]: the end of each one's SHA-256.

    The beginning decides on the split (`split_keys`), so a sample must not depend on it.

    Args:
        digests: Fixed-size binary [N], without nulls.
    """
    parts = np.frombuffer(digests.buffers()[1] or b"", ">u8")
    return parts[4 * digests.offset :][: 4 * len(digests)][3::4].astype(np.uint64)


def random_order(run: Run, count: int) -> NDArray[np.int_]:
    """Return the first rows of an archive's random order, in this order; of equal files, one.

    Args:
        run: Codes or predictions.
        count: How many rows, at most.
    """
    keys, rows = np.array([], np.uint64), np.array([], np.int64)
    before = 0
    for batch in run.batches(["sha256", "status"]):
        is_ok = pc.equal(batch["status"], OK)
        keys = np.concatenate([keys, content_keys(batch["sha256"].filter(is_ok))])
        rows = np.concatenate([rows, before + np.flatnonzero(is_ok.to_numpy(zero_copy_only=False))])
        if len(keys) > 2 * count:
            keys, rows = _smallest(keys, rows, count)
        before += len(batch)
    return _smallest(keys, rows, count)[1]


def _smallest(
    keys: NDArray[np.uint64], rows: NDArray[np.int_], count: int
) -> tuple[NDArray[np.uint64], NDArray[np.int_]]:
    """Return the smallest keys, ascending, and their rows; of equal keys the first."""
    distinct, first = np.unique(keys, return_index=True)
    return distinct[:count], rows[first[:count]]
