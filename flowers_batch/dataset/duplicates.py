"""Counting images with equal bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from flowers_batch.dataset.manifest import Manifest
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_reading import read_shard
from flowers_batch.storage.folder import Folder

_MAX_DIGESTS = 1 << 24
_FILES_AT_ONCE = 8


def count_duplicates(
    folder: Folder, kind: str, manifest: Manifest, fingerprint: str, *, max_digests: int = _MAX_DIGESTS
) -> int:
    """Return how many images have the same bytes as an earlier one; memory grows with shards at most.

    Compared are the first 64 bits of SHA-256: for 100 million images, one count in 3000 is expected to be off by one.

    Args:
        folder: The run's folder.
        kind: `codes` or `predictions`.
        manifest: Its shards; all are complete.
        fingerprint: `Fingerprint.digest` of the run.
        max_digests: Digests in memory at a time; more take another pass over all shards.
    """
    passes = -(-manifest.images // max_digests)
    found = 0
    for remainder in range(passes):

        def digests(shard: Shard, remainder: int = remainder) -> NDArray[np.uint64]:
            rows = read_shard(folder, kind, shard, fingerprint, ["sha256"])
            columns = [batch["sha256"].drop_null() for batch in rows]
            found_here = [
                np.frombuffer(c.buffers()[1], "u8", 4 * len(c), 32 * c.offset)[::4] for c in columns if len(c)
            ]
            values = np.concatenate([*found_here, np.empty(0, "u8")])
            return values[values % passes == remainder]

        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            values = np.concatenate(list(pool.map(digests, manifest.shards)))
        values.sort()  # many times as fast as np.unique
        found += int(np.count_nonzero(values[1:] == values[:-1]))
    return found
