"""Where the pixels of a batch come from: decode workers or, of shrunk photos, the files that hold their pixels."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol

import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.dataset.shrunk import ShrunkSource
from flowers_batch.decoding.outputs import SquarePixels
from flowers_batch.decoding.pool import DecodePool, PoolSettings
from flowers_batch.decoding.tasks import DecodedGroup
from flowers_batch.encoding.shrunk_pool import ShrunkPool
from flowers_batch.sources.source import Source


class PixelPool(Protocol):
    """Puts pixels of images into slots: a `DecodePool`, or a `ShrunkPool`.

    Attributes:
        slots: [slots, ...].
        settings: How many images are worked on at once.
    """

    slots: NDArray[Any]
    settings: PoolSettings

    @property
    def steps(self) -> int:
        """Grows as long as it makes progress."""

    def submit(self, rows: pa.RecordBatch, first_slot: int) -> Future[DecodedGroup]:
        """Have a few images put into slots: see `DecodePool.submit`."""

    def close(self) -> None:
        """End the work; what was submitted and is not finished fails."""


def open_pool(source: Source, output: SquarePixels, settings: PoolSettings, slots: int) -> PixelPool:
    """Return what puts pixels into slots; the arguments are those of a `DecodePool`."""
    if isinstance(source, ShrunkSource):
        return ShrunkPool(source, output, settings, slots)
    return DecodePool(source, output, settings, slots)
