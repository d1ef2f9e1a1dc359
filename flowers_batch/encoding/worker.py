"""What an actor runs on a shard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from flowers_batch.encoding.stages import Stages
from flowers_batch.fingerprint import Fingerprint


class Worker(Protocol):
    """What an actor runs on a shard: `Encoder` or `CodesLabeller`.

    Attributes:
        schema: Of the rows.
        fingerprint: What the rows depend on.
        can_reuse_rows: Whether unchanged rows of a shard's older file may be copied instead of being computed again.
    """

    schema: pa.Schema
    fingerprint: Fingerprint
    can_reuse_rows: bool

    @property
    def steps(self) -> int:
        """Grows as long as the worker makes progress."""

    def batches(self, shard: int, rows: pa.Table, stages: Stages) -> Iterator[pa.RecordBatch]:
        """Yield a shard's rows in the manifest's order, and add seconds to the stages."""
