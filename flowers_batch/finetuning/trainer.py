"""Training of a network with a classifier on top; a killed training resumes after the last complete epoch."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import fit_temperature, log_loss
from flowers_batch.classifier.head import Layer
from flowers_batch.decoding.pool import PoolSettings
from flowers_batch.encoding.stages import add_seconds
from flowers_batch.errors import RunError
from flowers_batch.finetuning.checkpoint import publish_best_epoch, restore_last_epoch, save_epoch
from flowers_batch.finetuning.job import FinetuningJob
from flowers_batch.finetuning.pixels import PixelReader
from flowers_batch.finetuning.trainable_model import DROPOUT, build_trainable_model
from flowers_batch.finetuning.training_devices import TrainingDevices
from flowers_batch.finetuning.training_state import Epoch, TrainingState
from flowers_batch.progress import Progress, Reporter, no_progress
from flowers_batch.storage.opening import open_folder


class _DivergedError(Exception):
    """The loss became NaN or infinite."""


class Trainer:
    """Trains the network of a job.

    Args:
        job: What to train, and how.
        workers: Processes that decode photos.
        devices: How many devices share the batches.
        dropout: The rate of all dropout.
        progress: Called with each step of building the network.

    Attributes:
        devices: The devices.
        model: The network.
    """

    def __init__(
        self,
        job: FinetuningJob,
        workers: int,
        devices: int,
        dropout: float = DROPOUT,
        progress: Callable[[], None] = no_progress,
    ):
        self._job, self._folder = job, open_folder(job.folder)
        batch_size = max(1, job.config.batch_size // devices) * devices  # an equal part for each device
        self.devices = TrainingDevices(devices)
        with self.devices.scope():
            steps = math.ceil(len(job.photos.training) / batch_size)
            self.model = build_trainable_model(job, steps, dropout, progress)
        # All photos were within the limit with which they were encoded, whatever that was.
        photos, settings = job.photos, PoolSettings(workers, sys.maxsize, job.encoding.image_timeout)
        self._pixels = PixelReader(
            photos.source, photos.images, photos.digests, batch_size, settings, job.encoding.decode
        )
        self._last_lap = time.monotonic()

    def train(self, reporter: Reporter) -> TrainingState:
        """Train until all epochs are done or validation stops improving, from the last epoch that was saved.

        Returns:
            All epochs, and which of them is the best.

        Raises:
            RunError: The loss became NaN or infinite before any epoch was better than none.
        """
        epochs = self._job.config.epochs
        state = restore_last_epoch(self._folder, self.model)
        self._last_lap, stages = time.monotonic(), dict[str, float]()
        if state is None or not state.is_finished(epochs):
            self._decode_all(stages, reporter)
        if state is None:
            validated = self.validate("before", stages, reporter)
            state = TrainingState().after(Epoch(0, *validated, seconds=self._lap(), stages=stages))
            stages = {"save": save_epoch(self._folder, self.model, state)}
        while not state.is_finished(epochs):
            number = len(state.epochs)
            try:
                epoch = self._train_epoch(number, state, stages, reporter)
            except _DivergedError:
                if not state.best:
                    raise self._diverged(number) from None
                reporter.message(f"epoch {number}: the loss became NaN or infinite; epoch {state.best} is kept")
                break
            state = state.after(epoch)
            is_best = state.best == number
            if not is_best:
                self.model.halve_learning_rates()
            reporter.update(Progress(f"epoch {number} of {epochs}: saving"))
            stages = {"save": save_epoch(self._folder, self.model, state)}
            # Only after saving: a message counts as progress, and an actor that dies while it saves has made none.
            reporter.message(
                f"epoch {number} of {epochs}: {_figures_text(epoch.loss, epoch.accuracy)}; "
                f"on validation photos {_figures_text(epoch.validation_loss, epoch.validation_accuracy)}"
                + (", the best so far" if is_best else "")
            )
        return state

    def publish(self, state: TrainingState) -> Layer:
        """Write the weights of the best epoch into the model folder; return the head's kernel and bias."""
        return publish_best_epoch(self._folder, self.model, state, self._job)

    def close(self) -> None:
        """End the processes that decode."""
        self._pixels.close()

    def validate(self, when: str, stages: dict[str, float], reporter: Reporter) -> tuple[float, float]:
        """Return loss, at the temperature that minimises it, and accuracy on the validation photos.

        Args:
            when: Begins the progress text.
            stages: Seconds by stage, to be added to.
            reporter: Receives progress.
        """
        photos = self._job.photos
        parts: list[NDArray[np.float32]] = []
        for pixels in self.read_pixels(photos.validation, stages):
            started = time.monotonic()
            parts.append(self.devices.predict(self.model.classifier, pixels))
            add_seconds(stages, "network", time.monotonic() - started)
            done = sum(map(len, parts))
            reporter.update(Progress(f"{when}: validating, {done} of {len(photos.validation)} photos"))
        logits, targets = np.concatenate(parts), photos.targets[photos.validation]
        loss = log_loss(logits, targets, fit_temperature(logits, targets))
        return loss, float((logits.argmax(1) == targets).mean())

    def read_pixels(self, indices: NDArray[np.int_], stages: dict[str, float]) -> Iterator[NDArray[np.uint8]]:
        """Yield the pixels of photos in batches, and add the seconds of waiting for them to `stages`."""
        started = time.monotonic()
        for pixels in self._pixels.batches(indices):
            add_seconds(stages, "wait", time.monotonic() - started)
            yield pixels
            started = time.monotonic()

    def _decode_all(self, stages: dict[str, float], reporter: Reporter) -> None:
        """Decode all photos into the scratch file in their stored order, if it has room for them.

        An epoch's random order would read the row groups of a table from their beginning again and again.
        """
        if not self._pixels.has_scratch_file:
            return
        done, photos = 0, len(self._job.photos)
        for pixels in self.read_pixels(np.arange(photos), stages):
            done += len(pixels)
            reporter.update(Progress(f"decoding, {done} of {photos} photos"))

    def _train_epoch(self, number: int, state: TrainingState, stages: dict[str, float], reporter: Reporter) -> Epoch:
        photos, epochs = self._job.photos, self._job.config.epochs
        order = np.random.default_rng([self._job.config.train.seed, number]).permutation(photos.training)
        lr_multiplier = self.model.lr_multiplier
        done = counted = 0
        loss = accuracy = 0.0  # sums over the counted photos
        seconds_before = sum(epoch.seconds for epoch in state.epochs[1:])
        for pixels in self.read_pixels(order, stages):
            batch = order[done : done + len(pixels)]
            done += len(pixels)
            started = time.monotonic()
            results = self.devices.step(self.model.classifier, pixels, photos.targets[batch], photos.weights[batch])
            add_seconds(stages, "network", time.monotonic() - started)
            if not math.isfinite(results.get("loss", 0.0)):
                raise _DivergedError
            if results:
                counted += len(pixels)
                loss += results["loss"] * len(pixels)
                accuracy += results["accuracy"] * len(pixels)
            passed = number - 1 + done / len(order)  # epochs
            left = (seconds_before + time.monotonic() - self._last_lap) / passed * (epochs - passed)
            figures = _figures_text(loss / max(1, counted), accuracy / max(1, counted))
            reporter.update(
                Progress(
                    f"epoch {number} of {epochs}: {done} of {len(order)} photos, {figures}, "
                    f"{_duration(left)} left at most"
                )
            )
        validated = self.validate(f"epoch {number} of {epochs}", stages, reporter)
        loss, accuracy = loss / max(1, counted), accuracy / max(1, counted)
        return Epoch(number, *validated, loss, accuracy, lr_multiplier, self._lap(), stages)

    def _lap(self) -> float:
        """Return the seconds since the last call, or since the training started."""
        before, self._last_lap = self._last_lap, time.monotonic()
        return self._last_lap - before

    def _diverged(self, epoch: int) -> RunError:
        return RunError(
            f"The loss became NaN or infinite in epoch {epoch}: start again with smaller steps, such as "
            f"`lr_multiplier` {self._job.config.lr_multiplier / 10:g}, by {self._job.rerun_hint}."
        )


def _figures_text(loss: float, accuracy: float) -> str:
    return f"loss {loss:.3f}, accuracy {accuracy:.1%}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
