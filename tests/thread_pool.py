"""Threads in place of decode workers, which take a second to start: for tests of what comes after decoding."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.groups import MISSING_MESSAGE, RESULTS
from flowers_batch.decoding.outputs import Output
from flowers_batch.decoding.pool import PoolSettings
from flowers_batch.decoding.tasks import DecodedGroup
from flowers_batch.sources.images import images_of
from flowers_batch.sources.reading import ReadError

_USERS = "encoding.pixel_pools", "encoding.shrinking", "metadata.archive_keywords", "decoding.pool"


class ThreadPool:
    """Decodes as a `DecodePool` does, in threads of this process.

    Args:
        source: Anything that reads images.
        output, settings, slots: As of a `DecodePool`.
    """

    def __init__(self, source: Any, output: Output, settings: PoolSettings, slots: int):
        self.source, self.settings, self.steps = source, settings, 0
        self.slots = np.zeros((slots, *output.shape), output.dtype)
        self._output = output
        self._threads = ThreadPoolExecutor(settings.workers)

    def submit(self, rows: pa.RecordBatch, first_slot: int) -> Future[DecodedGroup]:
        """Read and decode a few images in a thread."""
        return self._threads.submit(self._decode, rows, first_slot)

    def close(self) -> None:
        """End all threads."""
        self._threads.shutdown(cancel_futures=True)

    def _decode(self, rows: pa.RecordBatch, first_slot: int) -> DecodedGroup:
        seconds = {"read": 0.0, "decode": 0.0}
        images = zip(images_of(rows), rows["is_missing"].to_pylist(), self.slots[first_slot:], strict=False)
        results = [self._row(*each, seconds) for each in images]
        self.steps += 1
        return DecodedGroup(pa.RecordBatch.from_pylist(results, RESULTS), seconds["read"], seconds["decode"])

    def _row(self, image: Any, is_missing: bool, slot: np.ndarray, seconds: dict[str, float]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        started = time.perf_counter()
        try:
            if is_missing:
                raise ReadError("missing", MISSING_MESSAGE)
            data = self.source.read(image)
            read = time.perf_counter()
            seconds["read"] += read - started
            row |= {"sha256": hashlib.sha256(data).digest(), "bytes": len(data)}
            found = self._output.write(data, slot, self.settings.max_pixels, None)
            seconds["decode"] += time.perf_counter() - read
            return row | found._asdict()
        except (ReadError, DecodeError) as error:
            return row | {"reason": error.reason, "message": str(error)}


@contextmanager
def decoding_in_threads() -> Iterator[None]:
    """Have whatever decodes images do so in threads of this process."""
    with pytest.MonkeyPatch.context() as patch:
        for module in _USERS:
            patch.setattr(f"flowers_batch.{module}.DecodePool", ThreadPool)
        yield
