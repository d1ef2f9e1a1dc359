"""Turning shards of images into tables of codes, of labels, or of their pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.dataset.manifest_part import MISSING
from flowers_batch.dataset.schema import FAILED, OK, folders_of
from flowers_batch.decoding.groups import requests_of
from flowers_batch.encoding.feed import Feed, Network
from flowers_batch.encoding.pixel_pools import PixelPool
from flowers_batch.encoding.results import Results
from flowers_batch.encoding.shard_feed import FedBatch
from flowers_batch.encoding.stages import Stages
from flowers_batch.fingerprint import Fingerprint

_NONE = np.empty((0, 0), np.uint8)  # of the codes of images that all failed


class Encoder:
    """Turns shards of images into tables of codes, of labels, or of their pixels.

    Args:
        network: Pixels [N, 224, 224, 3] to codes float32 [N, width].
        results: Makes columns of the codes.
        pool: Decodes images.
        fingerprint: What the rows depend on.
        batch_size: Images in one pass through the network.
        reads_missing: Whether images that the last listing did not find are looked for again; not if a list names them,
            which may name any file.
    """

    def __init__(
        self,
        network: Network,
        results: Results,
        pool: PixelPool,
        fingerprint: Fingerprint,
        batch_size: int,
        *,
        reads_missing: bool = True,
    ):
        self.schema, self.fingerprint, self.can_reuse_rows = results.schema, fingerprint, True
        self._results, self._reads_missing = results, reads_missing
        self._feed = Feed(network, pool, batch_size, fingerprint.code_dtype)

    @property
    def steps(self) -> int:
        """Grows as long as images are decoded and computed."""
        return self._feed.steps

    def batches(self, shard: int, rows: pa.Table, stages: Stages) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a shard; another thread may begin with the next one meanwhile, so that there is no pause.

        Args:
            shard: Its number.
            rows: Its manifest rows.
            stages: Gains the seconds spent in `read` and `decode` (by all workers together), `wait` (for the next
                batch's pixels), and `network`.

        Raises:
            RunError: A code does not fit into the type that it is stored in, the photos' folder is lost, decode workers
                cannot be kept alive, or an image met a bug.
        """
        is_missing = None if self._reads_missing else pc.equal(rows["action"], MISSING).combine_chunks()
        requests = requests_of(rows, is_missing)
        paths, folders = requests["path"], folders_of(requests)
        start = 0
        for fed in self._feed.run(requests, stages):
            images = len(fed.rows)
            yield self._table({"path": paths.slice(start, images), "folder": folders.slice(start, images)}, fed)
            start += images

    def _table(self, columns: dict[str, pa.Array], fed: FedBatch) -> pa.RecordBatch:
        is_ok = fed.rows["reason"].is_null()
        columns |= {name: fed.rows[name] for name in fed.rows.schema.names}
        columns["status"] = pc.if_else(is_ok, OK, FAILED)
        codes = _NONE if fed.codes is None else fed.codes
        columns |= self._results.columns(codes, is_ok.to_numpy(zero_copy_only=False))
        return pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)
