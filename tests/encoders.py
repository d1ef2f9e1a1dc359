"""Encoders of small photos in memory, for tests of all but the network."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
from helpers import encoded, fingerprint, manifest_rows, random_pixels
from thread_pool import ThreadPool

from flowers_batch.config import EncodeConfig
from flowers_batch.decoding.outputs import SquarePixels
from flowers_batch.decoding.pool import PoolSettings
from flowers_batch.encoding.encoder import Encoder
from flowers_batch.encoding.feed import count_buffers
from flowers_batch.encoding.networks import NullNetwork
from flowers_batch.encoding.results import CodeResults
from flowers_batch.sources.images import Image
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


def thread_pool(photos, batch_size: int, workers: int = 2, dtype: str = "float32") -> ThreadPool:
    settings, slots = (
        PoolSettings(workers, EncodeConfig.max_pixels, 60.0),
        count_buffers(workers, batch_size) * batch_size,
    )
    return ThreadPool(photos, SquarePixels(dtype), settings, slots)


def encoder(photos, network=None, width=768, batch_size=4, threads=2, labeller=None, **changes) -> Encoder:
    """Return an encoder; `changes` are those of its fingerprint."""
    pool, made = thread_pool(photos, batch_size, threads), fingerprint(**changes)
    results = labeller or CodeResults(width, made.code_dtype)
    return Encoder(network or NullNetwork(), results, pool, made, batch_size)


def table(worker, paths, stages=None) -> pa.Table:
    stages = {} if stages is None else stages
    return pa.Table.from_batches(worker.batches(0, manifest_rows(list(paths)), stages), worker.schema)
