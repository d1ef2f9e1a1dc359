"""Factories that travel to the actors and make workers there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from flowers_batch.classifier.head import Head
from flowers_batch.config import NULL_NETWORK, EncodeConfig
from flowers_batch.dataset.shrunk import ShrunkSource
from flowers_batch.decoding.outputs import SquarePixels
from flowers_batch.decoding.pool import PoolSettings
from flowers_batch.devices import hardware_precision, prepare_device
from flowers_batch.encoding.encoder import Encoder
from flowers_batch.encoding.feed import Network, count_buffers
from flowers_batch.encoding.labeller import CodesLabeller, Labeller
from flowers_batch.encoding.micro_batcher import CPU_BATCH, GPU_BATCH, MicroBatcher, compiled, pixel_type
from flowers_batch.encoding.networks import (
    NullNetwork,
    build_network,
    code_width,
    codes_fingerprint,
    fingerprint_over,
)
from flowers_batch.encoding.pixel_pools import open_pool
from flowers_batch.encoding.results import CodeResults, Results
from flowers_batch.encoding.worker import Worker
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.progress import no_progress
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.source import Source


@dataclass(frozen=True)
class EncoderFactory:
    """Makes an encoder in the process where it is to run; the factory itself is small enough to be sent there.

    Attributes:
        config: How photos become codes.
        source: Where they are read from.
        head: What labels the codes; None stores them.
        top_k: Labels that a prediction keeps; None for codes.
    """

    config: EncodeConfig
    source: Source
    head: Head | None = None
    top_k: int | None = None

    def with_precision(self, precision: str) -> EncoderFactory:
        """Return the same factory with a precision to compute in."""
        return replace(self, config=replace(self.config, precision=precision))

    @property
    def wants_gpu(self) -> bool:
        """Whether the encoder computes on a GPU where the cluster has one."""
        return True

    def __call__(self, threads: int, gpu: bool, progress: Callable[[], None] = no_progress) -> Worker:
        """Build the network from its weights, and the encoder around it.

        It changes settings of the whole process (threads of libraries, standard error while TensorFlow starts), so it
        must be called in a process of our own: an actor's.

        Args:
            threads: Processes that read and decode, and threads that, on a CPU, compute.
            gpu: Whether the network must run on a GPU.
            progress: Called with each step.

        Raises:
            InputError: TensorFlow sees no GPU although it must; the weights are not available, or do not fit.
        """
        network, weights, precision, batch_size = self._network(threads, gpu, progress)
        fingerprint = fingerprint_over(self.source, codes_fingerprint(self.config, weights, precision))
        results: Results = CodeResults(code_width(self.config), self.config.code_dtype)
        if self.head is not None and self.top_k is not None:
            fingerprint = replace(fingerprint, head=self.head.identity, top_k=self.top_k)
            results = Labeller(self.head, self.top_k)
        pool = open_pool(
            self.source,
            SquarePixels(np.dtype(self._pixel_type(precision)).name, fingerprint.decode),
            PoolSettings(threads, self.config.max_pixels, self.config.image_timeout),
            count_buffers(threads, batch_size) * batch_size,
        )
        reads_missing = not isinstance(self.source, ListSource)
        return Encoder(network, results, pool, fingerprint, batch_size, reads_missing=reads_missing)

    def _pixel_type(self, precision: str) -> type[np.float32] | type[np.uint8]:
        """Return the type of the network's input."""
        are_rounded = self.config.uint8_pixels or isinstance(self.source, ShrunkSource)
        return pixel_type(precision, are_rounded=are_rounded)

    def _network(self, threads: int, gpu: bool, progress: Callable[[], None]) -> tuple[Network, str, str, int]:
        """Return the network, the identity of its weights, its precision, and the batch size that fits its device."""
        config = self.config
        batch_size = config.batch_size or (GPU_BATCH if gpu else CPU_BATCH)
        if config.network == NULL_NETWORK:
            return NullNetwork(), NULL_NETWORK, "float32", batch_size
        prepare_device(threads, gpu)
        precision = hardware_precision(gpu) if config.precision == "auto" else config.precision
        model, weights = build_network(config, precision, progress=progress)
        dtype = self._pixel_type(precision)
        batcher = MicroBatcher(compiled(model, dtype), batch_size)
        # On a GPU the largest batch, to see whether it fits; on a CPU one image, to compile.
        batcher.fit(np.zeros((batch_size if gpu else 1, *model.input_shape[1:]), dtype))
        return batcher, weights, precision, batcher.size


@dataclass(frozen=True)
class LabellerFactory:
    """Makes a `CodesLabeller` in the process where it is to run.

    Attributes:
        codes: The codes folder's path or URL.
        fingerprint: Of those codes.
        head: What labels them.
        top_k: Labels that a prediction keeps.
    """

    codes: str
    fingerprint: Fingerprint
    head: Head
    top_k: int

    def with_precision(self, precision: str) -> LabellerFactory:
        """Return the same factory: no code is computed."""
        return self

    @property
    def wants_gpu(self) -> bool:
        """Whether the worker computes on a GPU: labelling codes does not."""
        return False

    def __call__(self, threads: int, gpu: bool, progress: Callable[[], None] = no_progress) -> Worker:
        """Make the labeller, which needs neither threads nor a GPU."""
        fingerprint = replace(self.fingerprint, head=self.head.identity, top_k=self.top_k)
        return CodesLabeller(self.codes, fingerprint, Labeller(self.head, self.top_k))
