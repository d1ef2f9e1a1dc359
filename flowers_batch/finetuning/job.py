"""A fine-tuning run as a job that travels to one actor, and that another call resumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.classifier.class_weights import balanced_sample_weights
from flowers_batch.classifier.head import Head, Layer
from flowers_batch.config import EncodeConfig, FinetuneConfig
from flowers_batch.dataset.tunings import Tunings
from flowers_batch.devices import is_out_of_memory, prepare_device
from flowers_batch.errors import FlowersError, RunError
from flowers_batch.finetuning.training_state import TrainingState
from flowers_batch.progress import Progress, Reporter
from flowers_batch.sources.source import Source


@dataclass(frozen=True)
class TrainingPhotos:
    """The photos of the training and of the validation split.

    Attributes:
        source: Where they are read from.
        images: A table with the columns `sources.images.IMAGES`.
        digests: SHA-256 of each one's file.
        targets: int [N]: each one's class.
        is_training: bool [N]: which are trained on; the others validate.
    """

    source: Source
    images: pa.Table
    digests: Sequence[bytes]
    targets: NDArray[np.int_]
    is_training: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def training(self) -> NDArray[np.int_]:
        """Indices of the training photos."""
        return np.flatnonzero(self.is_training)

    @cached_property
    def validation(self) -> NDArray[np.int_]:
        """Indices of the validation photos."""
        return np.flatnonzero(~self.is_training)

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """Weights of the training photos by which each class counts equally; 0 for the others."""
        weights = np.zeros(len(self), np.float32)
        weights[self.training] = balanced_sample_weights(self.targets[self.training])
        return weights


@dataclass(frozen=True)
class FinetuningResult:
    """The result of a training run, besides the network's weights, which are in the model folder.

    Attributes:
        layer: The head's kernel and bias, for normalised codes.
        state: The epochs, and the one that the weights are of.
        gpus: How many GPUs there were.
    """

    layer: Layer
    state: TrainingState
    gpus: int


@dataclass(frozen=True)
class FinetuningJob:
    """A fine-tuning run; it is small, and travels to the actor that runs it.

    Attributes:
        config: The settings.
        encoding: How the codes were made that the head was fitted to.
        weights: The identity of the initial weights.
        photos: The photos.
        head: A logistic regression on the codes, with which training starts.
        folder: The model folder.
        codes: The folder of those codes.
        tuned_on: What the initial weights were fine-tuned on.
    """

    config: FinetuneConfig
    encoding: EncodeConfig
    weights: str
    photos: TrainingPhotos
    head: Head
    folder: str
    codes: str
    tuned_on: Tunings = ()

    @property
    def is_from_scratch(self) -> bool:
        """Whether the initial weights are random."""
        return self.encoding.weights.startswith("random:")

    @property
    def rerun_hint(self) -> str:
        """How to start again with other settings."""
        return f"`flowers-batch finetune {self.codes} ANOTHER_FOLDER`, which encodes nothing again"

    def __call__(self, threads: int, gpus: int, reporter: Reporter) -> FinetuningResult:
        """Train, from the last epoch that an earlier call saved, and publish the network's weights.

        Args:
            threads: How many cores there are: for the network, and for as many processes that decode photos.
            gpus: How many there are.
            reporter: Receives progress.

        Raises:
            InputError: The initial weights are missing or different, or a photo can no longer be read.
            RunError: The loss became NaN or infinite, or a step does not fit into memory.
        """
        from flowers_batch.finetuning.trainer import Trainer  # it needs this module

        prepare_device(threads, bool(gpus))
        try:
            steps = count(1)
            trainer = Trainer(
                self,
                threads,
                max(1, gpus),
                progress=lambda: reporter.update(Progress(f"loading the network's weights, step {next(steps)}")),
            )
            try:
                state = trainer.train(reporter)
                reporter.update(Progress("writing the network's weights"))
                return FinetuningResult(trainer.publish(state), state, gpus)
            finally:
                trainer.close()
        except FlowersError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise RunError(
                    f"A step of {self.config.batch_size} photos does not fit into memory: start again with a smaller "
                    f"`batch_size`, or `unfreeze` less, by {self.rerun_hint}."
                ) from error
            raise
