"""Shrinking: an encoder without a network, which keeps the pixels that any network would get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from flowers_batch.config import ShrinkConfig
from flowers_batch.decoding.outputs import ShrunkPhoto, WebpThumbnail
from flowers_batch.decoding.pool import DecodePool, PoolSettings
from flowers_batch.encoding.encoder import Encoder
from flowers_batch.encoding.feed import count_buffers
from flowers_batch.encoding.results import PixelResults
from flowers_batch.encoding.worker import Worker
from flowers_batch.fingerprint import Fingerprint, pixels_fingerprint
from flowers_batch.progress import no_progress
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.source import Source

_LEAST_BATCH = 32  # photos; larger batches need more memory, and are no faster for a few workers
_PHOTOS_PER_WORKER = 8  # of a batch: with fewer, too few are read ahead to hide the delay of a store
_THUMBNAIL = WebpThumbnail(512)


@dataclass(frozen=True)
class ShrinkFactory:
    """Makes an encoder that keeps pixels, in the process where it is to run: neither TensorFlow nor a GPU is needed.

    Attributes:
        config: How photos are decoded.
        source: Where they are read from.
    """

    config: ShrinkConfig
    source: Source

    def with_precision(self, precision: str) -> ShrinkFactory:
        """Return the same factory: nothing is computed."""
        return self

    @property
    def wants_gpu(self) -> bool:
        """Whether the worker computes on a GPU: decoding does not."""
        return False

    def __call__(self, threads: int, gpu: bool, progress: Callable[[], None] = no_progress) -> Worker:
        """Make the encoder.

        Args:
            threads: Processes that read and decode.
            gpu, progress: As for `EncoderFactory`; not used.
        """
        config, batch = self.config, max(_LEAST_BATCH, _PHOTOS_PER_WORKER * threads)
        pool = DecodePool(
            self.source,
            ShrunkPhoto(config.decode, _THUMBNAIL if config.thumbnails else None),
            PoolSettings(threads, config.max_pixels, config.image_timeout),
            count_buffers(threads, batch) * batch,
        )
        results = PixelResults(has_thumbnails=config.thumbnails)
        reads_missing = not isinstance(self.source, ListSource)
        return Encoder(_pass_on, results, pool, shrunk_fingerprint(config), batch, reads_missing=reads_missing)


def shrunk_fingerprint(config: ShrinkConfig) -> Fingerprint:
    """Return the fingerprint of photos that are shrunk with some settings."""
    return pixels_fingerprint(config.decode, _THUMBNAIL.long_edge if config.thumbnails else None)


def _pass_on(slots: NDArray[Any]) -> NDArray[Any]:
    return slots
