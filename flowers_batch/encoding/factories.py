"""Factories that travel to the actors and make encoders there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from flowers_batch.classifier.head import Head
from flowers_batch.config import NULL_NETWORK, EncodeConfig
from flowers_batch.decoding.inspection import find_poison_images
from flowers_batch.decoding.process_limits import prepare_process
from flowers_batch.devices import hardware_precision, prepare_device
from flowers_batch.encoding.feed import Network, Quarantined
from flowers_batch.encoding.micro_batcher import CPU_BATCH, GPU_BATCH, MicroBatcher, compiled, pixel_type
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.sources.images import Image
from flowers_batch.sources.source import Source

if TYPE_CHECKING:
    pass
from flowers_batch.encoding.encoder import Encoder
from flowers_batch.encoding.labeller import CodesLabeller, Labeller
from flowers_batch.encoding.networks import NullNetwork, build_network, code_width, codes_fingerprint
from flowers_batch.encoding.worker import Worker

_REMOTE_READS = 32  # at once, of photos in a store: each takes tens of milliseconds, in which nothing is computed


@dataclass(frozen=True)
class EncoderFactory:
    """Makes an encoder where it is to run; itself it is small, and travels to the actors.

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
        """The same factory, told what to compute in."""
        return replace(self, config=replace(self.config, precision=precision))

    @property
    def wants_gpu(self) -> bool:
        """Whether what it makes computes on a GPU where the cluster has one."""
        return True

    def find_poison_images(
        self, images: Sequence[Image], seconds: float, progress: Callable[[int], None]
    ) -> Quarantined:
        """Finds the images that end the process that decodes them, or keep it for more than so many seconds."""
        return find_poison_images(self.source.url, self.source.root, images, self.config.max_pixels, seconds, progress)

    def __call__(self, threads: int, gpu: bool) -> Worker:
        """Builds the network from its weights, and with it the encoder.

        Args:
            threads: Threads that read, decode and, on a CPU, compute.
            gpu: Whether the network must run on a GPU.

        Raises:
            InputError: TensorFlow sees no GPU although it should; the weights are not to be had, or do not fit.
        """
        config = self.config
        network: Network
        width = code_width(config)
        batch_size = config.batch_size or (GPU_BATCH if gpu else CPU_BATCH)
        if config.network == NULL_NETWORK:
            network, precision = NullNetwork(), "float32"
            weights = NULL_NETWORK
        else:
            prepare_device(threads, gpu)
            precision = hardware_precision(gpu) if config.precision == "auto" else config.precision
            model, weights = build_network(config, precision)
            passes = MicroBatcher(compiled(model, pixel_type(precision)), batch_size)
            # On a GPU the largest batch, to see whether it fits; a CPU only compiles what is compiled at first use.
            passes.fit(np.zeros((batch_size if gpu else 1, *model.input_shape[1:]), pixel_type(precision)))
            network, batch_size = passes, passes.size
        fingerprint = codes_fingerprint(config, weights, precision)
        labeller = None
        if self.head is not None and self.top_k is not None:
            fingerprint = replace(fingerprint, head=self.head.identity, top_k=self.top_k)
            labeller = Labeller(self.head, self.top_k)
        prepare_process()  # once all libraries are loaded, which it limits
        reads = 1 if self.source.folder.is_local else _REMOTE_READS
        return Encoder(
            network, width, self.source, fingerprint, batch_size, threads, labeller, config.max_pixels, reads
        )


@dataclass(frozen=True)
class LabellerFactory:
    """Makes a `CodesLabeller` where it is to run.

    Attributes:
        codes: The codes folder.
        fingerprint: Of those codes.
        head: What labels them.
        top_k: Labels that a prediction keeps.
    """

    codes: str
    fingerprint: Fingerprint
    head: Head
    top_k: int

    def with_precision(self, precision: str) -> LabellerFactory:
        """The same: no code is computed anew."""
        return self

    @property
    def wants_gpu(self) -> bool:
        """Whether what it makes computes on a GPU: labelling codes does not."""
        return False

    def find_poison_images(
        self, images: Sequence[Image], seconds: float, progress: Callable[[int], None]
    ) -> Quarantined:
        """None: codes are read, not decoded."""
        return {}

    def __call__(self, threads: int, gpu: bool) -> Worker:
        """Makes the labeller; it needs neither threads nor a GPU."""
        fingerprint = replace(self.fingerprint, head=self.head.identity, top_k=self.top_k)
        return CodesLabeller(self.codes, fingerprint, Labeller(self.head, self.top_k))
