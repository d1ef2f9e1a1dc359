"""What an actor runs on a shard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from flowers_batch.encoding.feed import Quarantined
from flowers_batch.fingerprint import Fingerprint

NOTHING_QUARANTINED: Quarantined = {}


class Worker(Protocol):
    """What an actor runs on a shard: `Encoder` or `CodesLabeller`."""

    schema: pa.Schema
    fingerprint: Fingerprint
    can_reuse_rows: bool  # whether rows of an older file of a shard may be carried over

    @property
    def images_seen(self) -> int:
        """Images so far: as long as this grows, it gets on."""

    def batches(
        self, shard: int, rows: pa.Table, stages: dict[str, float], quarantined: Quarantined = NOTHING_QUARANTINED
    ) -> Iterator[pa.RecordBatch]:
        """Yields a shard's rows in the manifest's order, and adds seconds to the stages."""
