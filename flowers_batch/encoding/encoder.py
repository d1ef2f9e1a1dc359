"""Turning shards of images into tables of codes or, with a head, of labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.dataset.manifest_part import MISSING
from flowers_batch.dataset.schema import FAILED, OK, codes_schema, folders_of, predictions_schema
from flowers_batch.decoding.groups import requests_of
from flowers_batch.decoding.pool import DecodePool
from flowers_batch.encoding.feed import Feed, Network
from flowers_batch.encoding.labeller import Labeller
from flowers_batch.encoding.shard_feed import FedBatch
from flowers_batch.encoding.stages import Stages
from flowers_batch.fingerprint import Fingerprint


class Encoder:
    """Turns shards of images into tables of codes or, with a head, of labels.

    Args:
        network: Pixels [N, 224, 224, 3] to codes float32 [N, width].
        width: Numbers in a code.
        pool: Decodes images.
        fingerprint: What the rows depend on.
        batch_size: Images in one pass through the network.
        labeller: What labels the codes; None stores the codes.
        reads_missing: Whether images that the last listing did not find are looked for again; not if a list names them,
            which may name any file.
    """

    def __init__(
        self,
        network: Network,
        width: int,
        pool: DecodePool,
        fingerprint: Fingerprint,
        batch_size: int,
        labeller: Labeller | None = None,
        *,
        reads_missing: bool = True,
    ):
        self.schema = predictions_schema() if labeller else codes_schema(width, fingerprint.code_dtype)
        self.fingerprint, self.can_reuse_rows = fingerprint, True
        self._width, self._labeller, self._reads_missing = width, labeller, reads_missing
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
        ok = is_ok.to_numpy(zero_copy_only=False)
        codes = np.empty((0, self._width), self.fingerprint.code_dtype) if fed.codes is None else fed.codes
        if self._labeller:
            columns |= self._labeller.columns(codes, ok)
        else:
            columns["code"] = _code_column(codes, ok, self.schema.field("code").type)
        return pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)


def _code_column(codes: NDArray[np.floating], ok: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    if ok.all():
        return pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), type=kind)
    padded = np.zeros((len(ok), kind.list_size), codes.dtype)
    padded[ok] = codes
    return pa.FixedSizeListArray.from_arrays(pa.array(padded.ravel()), type=kind, mask=pa.array(~ok))
