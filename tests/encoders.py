"""Encoders of small photos in memory, for tests of all but the network."""

from __future__ import annotations

import hashlib
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from helpers import encoded, fingerprint, manifest_rows, random_pixels

from flowers_batch.config import EncodeConfig
from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.groups import RESULTS
from flowers_batch.decoding.outputs import SquarePixels
from flowers_batch.decoding.pool import PoolSettings
from flowers_batch.decoding.tasks import DecodedGroup
from flowers_batch.encoding.encoder import Encoder
from flowers_batch.encoding.feed import count_buffers
from flowers_batch.encoding.networks import NullNetwork
from flowers_batch.sources.images import Image, images_of
from flowers_batch.sources.reading import ReadError


class Photos:
    """A source in memory: a name without bytes is missing, an exception is raised."""

    def __init__(self, photos: dict[str, bytes | Exception]):
        self.photos, self.reads, self._lock = photos, 0, threading.Lock()

    def read(self, image: Image) -> bytes:
        with self._lock:
            self.reads += 1
        content = self.photos.get(image.path)
        if content is None:
            raise ReadError("missing", "The file no longer exists.")
        if isinstance(content, Exception):
            raise content
        return content


def drawn(count: int) -> dict[str, bytes]:
    """Small pictures of many sizes, by their names."""
    sizes = np.random.default_rng(1).integers(20, 60, (count, 2))
    return {f"{n % 3}/{n:03d}.png": encoded(random_pixels(*size, seed=n)) for n, size in enumerate(sizes)}


def mean_colour(pixels: np.ndarray) -> np.ndarray:
    return pixels.mean((1, 2))


class ThreadPool:
    """Decodes as a `DecodePool` does, in threads of this process: for tests of all that comes after decoding."""

    def __init__(self, photos, batch_size: int, workers: int = 2, dtype: str = "float32"):
        output = SquarePixels(dtype)
        self.settings = PoolSettings(workers, EncodeConfig.max_pixels, 60.0)
        self.slots = np.zeros((count_buffers(workers, batch_size) * batch_size, *output.shape), dtype)
        self.photos, self.steps, self._output = photos, 0, output
        self._threads = ThreadPoolExecutor(workers)

    def submit(self, rows: pa.RecordBatch, first_slot: int) -> Future[DecodedGroup]:
        return self._threads.submit(self._decode, rows, first_slot)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _decode(self, rows: pa.RecordBatch, first_slot: int) -> DecodedGroup:
        seconds = {"read": 0.0, "decode": 0.0}
        slots = self.slots[first_slot:]
        results = [self._row(image, slot, seconds) for image, slot in zip(images_of(rows), slots, strict=False)]
        self.steps += 1
        return DecodedGroup(pa.RecordBatch.from_pylist(results, RESULTS), seconds["read"], seconds["decode"])

    def _row(self, image: Image, slot: np.ndarray, seconds: dict[str, float]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        started = time.perf_counter()
        try:
            data = self.photos.read(image)
            seconds["read"] += time.perf_counter() - started
            row |= {"sha256": hashlib.sha256(data).digest(), "bytes": len(data)}
            found = self._output.write(data, slot, EncodeConfig.max_pixels, None)
            seconds["decode"] += time.perf_counter() - started
            return row | found._asdict()
        except (ReadError, DecodeError) as error:
            return row | {"reason": error.reason, "message": str(error)}


def encoder(photos, network=None, width=768, batch_size=4, threads=2, labeller=None, **changes) -> Encoder:
    """Return an encoder; `changes` are those of its fingerprint."""
    pool, made = ThreadPool(photos, batch_size, threads), fingerprint(**changes)
    return Encoder(network or NullNetwork(), width, pool, made, batch_size, labeller)


def table(worker, paths, stages=None) -> pa.Table:
    stages = {} if stages is None else stages
    return pa.Table.from_batches(worker.batches(0, manifest_rows(list(paths)), stages), worker.schema)
