"""Trains a network further, with a classifier on top; killed, it resumes after the last complete epoch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import fit_temperature, log_loss
from flowers_batch.classifier.class_weights import balanced_sample_weights
from flowers_batch.classifier.head import Head, Layer
from flowers_batch.classifier.model_folder import NETWORK
from flowers_batch.config import EncodeConfig, FinetuneConfig
from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.format_version import in_current_format, with_format
from flowers_batch.decoding.resizing import SIDE
from flowers_batch.devices import is_out_of_memory, prepare_device
from flowers_batch.encoding.networks import build_network
from flowers_batch.encoding.stages import add_seconds
from flowers_batch.errors import FlowersError, InputError, RunError
from flowers_batch.finetuning.pixels import PixelReader
from flowers_batch.finetuning.training_devices import TrainingDevices
from flowers_batch.progress import Progress, Reporter
from flowers_batch.sources.images import images_of
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import open_folder

if TYPE_CHECKING:
    import keras

    from tensorflow_vgg.network import Parameters
from flowers_batch.finetuning.optimizer import _optimizer
from flowers_batch.finetuning.training_state import Epoch, State

_TRAINED = "trained"  # begins the names of variables that are trained
EPOCHS = "epochs"  # the folder of what a killed training goes on from
_DROPOUT = 0.5  # section 3.1 of arXiv 1409.1556
_HEAD_RATE = 0.03  # of Adam, over the root of a code's width: as where a head alone is trained
# Adam moves each weight by its rate, and so what a layer gives by up to rate * inputs * x, where weights that He's
# initialisation drew (arXiv 1502.01852) give sqrt(2) * x: a rate of sqrt(2) * share / inputs moves it by a share.
_TRAINED_SHARE = 0.03  # of the topmost layer, where a network was trained before
_DEEPER = 0.6  # of the share of the block above
_RANDOM_SHARE = 0.02  # of any layer of a network that was not


@dataclass(frozen=True)
class Tuned:
    """What a training gave, besides the network's weights, which lie in the model folder.

    Attributes:
        layer: The head's kernel and bias, for standardised codes.
        state: Its epochs, and which of them the weights are of.
        gpus: How many there were.
    """

    layer: Layer
    state: State
    gpus: int


@dataclass(frozen=True)
class Tuning:
    """A training; it is small, and travels to the actor that does it.

    Attributes:
        config: How.
        encoding: How the codes were made that the head was fitted to.
        weights: The identity of the weights that it begins with.
        source: Where the photos are read from.
        photos: Those of the training and of the validation side: a table with the columns `sources.IMAGES`.
        targets: int [N]: the number of each one's class.
        trained: bool [N]: which are trained on; the others validate.
        head: A logistic regression on the codes, which training begins with.
        folder: The model folder.
        codes: The folder of those codes.
        digests: SHA-256 of each photo's file.
    """

    config: FinetuneConfig
    encoding: EncodeConfig
    weights: str
    source: Source
    photos: pa.Table
    targets: NDArray[np.int_]
    trained: NDArray[np.bool_]
    head: Head
    folder: str
    codes: str
    digests: Sequence[bytes]

    @property
    def again(self) -> str:
        """How to begin with other options, as words."""
        return f"`flowers-batch finetune {self.codes} ANOTHER_FOLDER`, which encodes nothing again"

    def __call__(self, threads: int, gpus: int, reporter: Reporter) -> Tuned:
        """Trains, from where an earlier call was ended, and publishes the network's weights.

        Args:
            threads: Photos that are decoded at once.
            gpus: How many there are.
            reporter: Receives how it goes.

        Raises:
            InputError: The weights are not to be had or others, or a photo cannot be read any more.
            RunError: The loss is no number any more, or a step does not fit into memory.
        """
        prepare_device(threads, bool(gpus))
        try:
            tuner = Trainer(self, threads, max(1, gpus))
            try:
                state = tuner.train(reporter)
                reporter.update(Progress("writing the network's weights"))
                return Tuned(tuner.publish(state), state, gpus)
            finally:
                tuner.close()
        except FlowersError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise RunError(
                    f"A step of {self.config.batch_size} photos does not fit into memory: begin again with a smaller "
                    f"`batch_size`, or `unfreeze` less, by {self.again}."
                ) from error
            raise


class _DivergedError(Exception):
    """The loss is no number any more."""


class Trainer:
    """A network that is trained.

    Args:
        tuning: On what, and how.
        threads: Photos that are decoded at once.
        devices: How many the batches are shared among.
    """

    def __init__(self, tuning: Tuning, threads: int, devices: int):
        self._tuning, self._config = tuning, tuning.config
        self._folder, self._since = open_folder(tuning.folder), time.monotonic()
        self._trained, self._judged = np.flatnonzero(tuning.trained), np.flatnonzero(~tuning.trained)
        self._weights = np.zeros(len(tuning.photos), np.float32)
        self._weights[self._trained] = balanced_sample_weights(tuning.targets[self._trained])
        batch_size = max(1, self._config.batch_size // devices) * devices  # which all have an equal part of
        self._pixels = PixelReader(tuning.source, images_of(tuning.photos), tuning.digests, batch_size, threads)
        self._devices = TrainingDevices(devices)
        with self._devices.scope():
            self._build()

    def _build(self) -> None:
        """Makes the network with the head on top, and the optimizer."""
        import keras

        from flowers_batch.finetuning.augmentation import variations

        tuning, config = self._tuning, self._config
        seed, head = config.train.seed, tuning.head
        precision = {"bfloat16": "mixed_bfloat16"}.get(tuning.encoding.precision, tuning.encoding.precision)
        self._network, found = build_network(tuning.encoding, precision, _DROPOUT, seed)
        if found != tuning.weights:
            raise InputError(f"{tuning.encoding.weights} holds other weights here: give all nodes the same files.")
        self._layers = unfrozen(tuning.encoding.network, tuning.encoding.layer, config.unfreeze)
        for layer in self._network.layers:
            layer.trainable = layer.name in self._layers
        pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
        values = keras.ops.cast(pixels, "float32")
        for layer in variations(config.augment, seed + 1000):  # other numbers than dropout draws
            values = layer(values)
        # Standardised first, so that a value that is dropped is the usual one: where all codes are large and nearly
        # the same, nought would be a wild one.
        values = (self._network(values) - head.mean) / head.scale
        values = keras.layers.Dropout(_DROPOUT, seed=seed, name="drop")(values)
        self._head = keras.layers.Dense(len(head.classes), name="head", dtype="float32")
        self._model = keras.Model(pixels, self._head(values))
        self._head.set_weights(head.layers[0])
        steps = math.ceil(len(self._trained) / self._pixels.batch_size)
        self._optimizer = _optimizer(config.lr_multiplier, self._rates(), steps)
        self._model.compile(
            self._optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
            jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
        )
        self._optimizer.build(self._model.trainable_variables)

    def _rates(self) -> list[float]:
        """The learning rate of each of the model's variables that are trained."""
        is_random = self._tuning.encoding.weights.startswith("random:")
        blocks = list(dict.fromkeys(layer[:5] for layer in reversed(self._layers)))  # fc7, fc6, conv5, ...
        rates = []
        for variable in self._model.trainable_variables:
            layer = variable.path.split("/")[-2]  # of `fc6/kernel`, `conv5_1/bias`, `head/kernel`
            if layer == self._head.name:
                rates.append(_HEAD_RATE / math.sqrt(self._head.kernel.shape[0]))
                continue
            inputs = math.prod(self._network.get_layer(layer).kernel.shape[:-1])
            share = _RANDOM_SHARE if is_random else _TRAINED_SHARE * _DEEPER ** blocks.index(layer[:5])
            rates.append(math.sqrt(2) * share / inputs)
        return rates

    def train(self, reporter: Reporter) -> State:
        """Trains until no epoch is left or validation gets no better, from the last epoch that was saved."""
        state = self._restore()
        self._since, stages = time.monotonic(), dict[str, float]()
        if state is None or not state.ended(self._config.epochs):
            self._read_through(stages, reporter)
        if state is None:
            judged = self._judge("before", stages, reporter)
            state = State().after(Epoch(0, *judged, seconds=self._seconds(), stages=stages))
            stages = self._save(state)
        while not state.ended(self._config.epochs):
            number = len(state.epochs)
            try:
                epoch = self._epoch(number, state, stages, reporter)
            except _DivergedError:
                if not state.best:
                    raise RunError(
                        f"The loss is no number any more in epoch {number}: begin again with smaller steps, such as "
                        f"`lr_multiplier` {self._config.lr_multiplier / 10:g}, by {self._tuning.again}."
                    ) from None
                reporter.message(f"epoch {number}: the loss is no number any more, so that epoch {state.best} counts")
                break
            state = state.after(epoch)
            is_best = state.best == number
            if not is_best:
                self._optimizer.learning_rate = float(_array(self._optimizer.learning_rate)) / 2
            reporter.update(Progress(f"epoch {number} of {self._config.epochs}: saving"))
            stages = self._save(state)
            # What stays says that it got on: an actor that dies while it saves did not.
            reporter.message(
                f"epoch {number} of {self._config.epochs}: {_words(epoch.loss, epoch.accuracy)}; "
                f"on validation photos {_words(epoch.validation_loss, epoch.validation_accuracy)}"
                + (", the best so far" if is_best else "")
            )
        return state

    def _seconds(self) -> float:
        """Seconds since this was asked last."""
        before, self._since = self._since, time.monotonic()
        return self._since - before

    def _read_through(self, stages: dict[str, float], reporter: Reporter) -> None:
        """Has all photos decoded in the order in which they lie, if there is room for their pixels.

        In an epoch's order a table's row groups are read from their beginning again and again.
        """
        if not self._pixels.keeps:
            return
        done, photos = 0, len(self._tuning.photos)
        for pixels in self._read(np.arange(photos), stages):
            done += len(pixels)
            reporter.update(Progress(f"decoding, {done} of {photos} photos"))

    def _epoch(self, number: int, state: State, stages: dict[str, float], reporter: Reporter) -> Epoch:
        order = np.random.default_rng([self._config.train.seed, number]).permutation(self._trained)
        lr_multiplier = float(_array(self._optimizer.learning_rate))
        done = seen = 0
        loss = right = 0.0
        before = sum(epoch.seconds for epoch in state.epochs[1:])
        for pixels in self._read(order, stages):
            places = order[done : done + len(pixels)]
            done += len(pixels)
            stepped = time.monotonic()
            told = self._devices.step(self._model, pixels, self._tuning.targets[places], self._weights[places])
            add_seconds(stages, "network", time.monotonic() - stepped)
            if not math.isfinite(told.get("loss", 0.0)):
                raise _DivergedError
            if told:
                seen += len(pixels)
                loss += told["loss"] * len(pixels)
                right += told["accuracy"] * len(pixels)
            gone = number - 1 + done / len(order)
            left = (before + time.monotonic() - self._since) / gone * (self._config.epochs - gone)
            status = (
                f"epoch {number} of {self._config.epochs}: {done} of {len(order)} photos, "
                f"{_words(loss / max(1, seen), right / max(1, seen))}, {_duration(left)} left at most"
            )
            reporter.update(Progress(status))
        judged = self._judge(f"epoch {number} of {self._config.epochs}", stages, reporter)
        return Epoch(number, *judged, loss / max(1, seen), right / max(1, seen), lr_multiplier, self._seconds(), stages)

    def _judge(self, when: str, stages: dict[str, float], reporter: Reporter) -> tuple[float, float]:
        """Loss and accuracy on the validation side, at the temperature of the least loss."""
        parts: list[NDArray[np.float32]] = []
        for pixels in self._read(self._judged, stages):
            begun = time.monotonic()
            parts.append(self._devices.predict(self._model, pixels))
            add_seconds(stages, "network", time.monotonic() - begun)
            reporter.update(
                Progress(f"{when}: judging, {sum(map(len, parts))} of {len(self._judged)} validation photos")
            )
        logits, targets = np.concatenate(parts), self._tuning.targets[self._judged]
        loss = log_loss(logits, targets, fit_temperature(logits, targets))
        return loss, float((logits.argmax(1) == targets).mean())

    def _read(self, places: NDArray[np.int_], stages: dict[str, float]) -> Iterator[NDArray[np.uint8]]:
        """The pixels of photos, batch by batch, and the seconds that they were waited for."""
        begun = time.monotonic()
        for pixels in self._pixels.batches(places):
            add_seconds(stages, "wait", time.monotonic() - begun)
            yield pixels
            begun = time.monotonic()

    def _variables(self) -> dict[str, Any]:
        """All that an epoch depends on, by names that are the same whenever the same network is built."""
        model = self._model
        kinds = {
            _TRAINED: model.trainable_variables,
            "seed": [variable for variable in model.variables if variable.path.endswith("seed_generator_state")],
            "optimizer": self._optimizer.variables,
        }
        return {f"{kind}.{number}": each for kind, found in kinds.items() for number, each in enumerate(found)}

    def _save(self, state: State) -> dict[str, float]:
        """Publishes an epoch's end, and keeps besides only the best one's.

        Gives the seconds that it took, as the first stage of the next epoch.
        """
        from safetensors.numpy import save_file

        begun = time.monotonic()
        arrays = {name: _array(variable) for name, variable in self._variables().items()}
        last = _saved(len(state.epochs) - 1)
        with self._folder.publish(last) as scratch:
            save_file(arrays, scratch, {"state": json.dumps(with_format(asdict(state)))})
        for name in self._folder.names(EPOCHS):
            if f"{EPOCHS}/{name}" not in (_saved(state.best), last):
                self._folder.delete(f"{EPOCHS}/{name}")
        return {"save": time.monotonic() - begun}

    def _restore(self) -> State | None:
        """Takes up the last epoch that was saved; None where there is none."""
        from safetensors import safe_open

        saved = [name for name in self._folder.names(EPOCHS) if name.startswith("epoch-")]
        if not saved:
            return None
        saved_name = f"{EPOCHS}/{saved[-1]}"
        with self._folder.local_copy(saved_name) as path, safe_open(path, "numpy") as file:
            for name, variable in self._variables().items():
                variable.assign(file.get_tensor(name))
            content = json.loads(file.metadata()["state"])
        state = in_current_format(content, self._folder.url_of(saved_name), formats_0_1.upgrade_training_state)
        names = [field.name for field in fields(Epoch)]
        epochs = ({name: epoch[name] for name in names if name in epoch} for epoch in state["epochs"])
        return State(tuple(Epoch(**epoch) for epoch in epochs), state["best"])

    def publish(self, state: State) -> Layer:
        """Writes the weights of the best epoch into the model folder, and gives the head's kernel and bias."""
        from safetensors import safe_open

        from tensorflow_vgg.formats import write
        from tensorflow_vgg.weights import LICENCE

        with self._folder.local_copy(_saved(state.best)) as path, safe_open(path, "numpy") as file:
            for name, variable in self._variables().items():
                if name.startswith(_TRAINED):
                    variable.assign(file.get_tensor(name))
        encoding = self._tuning.encoding
        from_random = encoding.weights.startswith("random:")
        about = {
            "network": encoding.network,
            "licence": "none: random numbers, trained" if from_random else LICENCE,
            "source": f"{encoding.weights} ({self._tuning.weights})",
            "trained further": " ".join(self._layers) or "no layer",
        }
        with self._folder.publish(NETWORK) as scratch:
            whole = Path(f"{scratch}.safetensors")  # the format is told by the name
            try:
                write(whole, self._parameters(), "float32", about)
                whole.rename(scratch)
            finally:
                whole.unlink(missing_ok=True)
        kernel, bias = self._head.get_weights()
        return kernel, bias

    def _parameters(self) -> Iterator[Parameters]:
        from tensorflow_vgg.network import parameter_shapes

        for name in parameter_shapes(self._tuning.encoding.network, self._tuning.encoding.layer):
            kernel, bias = self._network.get_layer(name).get_weights()
            yield name, kernel, bias

    def close(self) -> None:
        """Ends the threads that decode."""
        self._pixels.close()


def unfrozen(network: str, layer: str, unfreeze: str) -> list[str]:
    """The layers of a network, up to one, that are trained together with the head, in the network's order.

    Raises:
        InputError: There are none, although some are asked for.
    """
    from tensorflow_vgg.network import parameter_shapes

    prefixes: dict[str, tuple[str, ...]] = {"head": (), "fc": ("fc",), "conv5": ("fc", "conv5"), "all": ("fc", "conv")}
    layers = [name for name in parameter_shapes(network, layer) if name.startswith(prefixes[unfreeze])]
    if not layers and unfreeze != "head":
        raise InputError(f"{network} up to {layer} has no layers of `unfreeze` {unfreeze}: unfreeze more, or head.")
    return layers


def _saved(epoch: int) -> str:
    return f"{EPOCHS}/epoch-{epoch:04d}.safetensors"


def _array(variable: keras.Variable) -> NDArray[Any]:
    """A variable's value, also where each device has a copy of it."""
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable))


def _words(loss: float, accuracy: float) -> str:
    return f"loss {loss:.3f}, accuracy {accuracy:.1%}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
