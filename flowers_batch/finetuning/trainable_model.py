"""The network with augmentation before it and a head on top, ready to be trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding.pixels import SIDE
from flowers_batch.encoding.networks import build_network
from flowers_batch.errors import InputError
from flowers_batch.finetuning.job import FinetuningJob
from flowers_batch.finetuning.optimizer import build_optimizer, learning_rates
from flowers_batch.progress import no_progress

if TYPE_CHECKING:
    import keras

    from tensorflow_vgg.network import Parameters

DROPOUT = 0.5  # section 3.1 of arXiv 1409.1556
TRAINED = "trained"  # begins the names of variables that are trained
_AUGMENTATION_SEED_OFFSET = 1000  # so that augmentation draws other numbers than dropout


@dataclass(frozen=True)
class TrainableModel:
    """A network and the classifier that contains it.

    Attributes:
        network: From pixels to codes.
        classifier: From pixels uint8 [N, 224, 224, 3] to logits; compiled, with an optimizer. Its layer `head` is the
            topmost one.
        unfrozen: The network's layers that are trained, in its order.
    """

    network: keras.Model
    classifier: keras.Model
    unfrozen: list[str]

    @property
    def head(self) -> keras.layers.Dense:
        """The topmost layer."""
        return self.classifier.get_layer("head")

    @property
    def lr_multiplier(self) -> float:
        """The factor of all learning rates."""
        return float(to_numpy(self.classifier.optimizer.learning_rate))

    def halve_learning_rates(self) -> None:
        """Halve the factor of all learning rates."""
        self.classifier.optimizer.learning_rate = self.lr_multiplier / 2

    def variables(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on, by names that each build of the network repeats."""
        model = self.classifier
        kinds = {
            TRAINED: model.trainable_variables,
            "seed": [variable for variable in model.variables if variable.path.endswith("seed_generator_state")],
            "optimizer": model.optimizer.variables,
        }
        return {f"{kind}.{number}": each for kind, found in kinds.items() for number, each in enumerate(found)}

    def parameters(self, network: str, layer: str) -> Iterator[Parameters]:
        """Yield name, kernel and bias of the layers of `vgg16` or `vgg19` up to one."""
        from tensorflow_vgg.network import parameter_shapes

        for name in parameter_shapes(network, layer):
            kernel, bias = self.network.get_layer(name).get_weights()
            yield name, kernel, bias


def build_trainable_model(
    job: FinetuningJob,
    steps_per_epoch: int,
    dropout: float = DROPOUT,
    progress: Callable[[], None] = no_progress,
) -> TrainableModel:
    """Return a network with its initial weights, and a classifier that starts as the job's head.

    Args:
        job: What to train.
        steps_per_epoch: For which the learning rates rise.
        dropout: The rate of all dropout.
        progress: Called with each step.

    Raises:
        InputError: The initial weights are not those that the codes were made with.
    """
    import keras

    from flowers_batch.finetuning.augmentation import augmentation_layers

    config, head, encoding = job.config, job.head, job.encoding
    seed = config.train.seed
    precision = {"bfloat16": "mixed_bfloat16"}.get(encoding.precision, encoding.precision)
    network, identity = build_network(encoding, precision, dropout, seed, progress)
    if identity != job.weights:
        raise InputError(f"{encoding.weights} holds other weights here: give all nodes the same files.")
    unfrozen = unfrozen_layers(encoding.network, encoding.layer, config.unfreeze)
    for layer in network.layers:
        layer.trainable = layer.name in unfrozen
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    values = keras.ops.cast(pixels, "float32")
    for layer in augmentation_layers(config.augment, seed + _AUGMENTATION_SEED_OFFSET):
        values = layer(values)
    # Normalised before dropout, so that of standardised codes a dropped value becomes the mean: where all values of a
    # dimension are large and similar, 0 would be an outlier.
    values = head.normalization.apply(keras.ops.cast(network(values), "float32"), keras.ops)
    values = keras.layers.Dropout(dropout, seed=seed, name="drop")(values)
    top = keras.layers.Dense(len(head.classes), name="head", dtype="float32")
    classifier = keras.Model(pixels, top(values))
    top.set_weights(head.layers[0])
    typical = head.normalization.typical_value(values.shape[-1])
    rates = learning_rates(classifier, network, unfrozen, job.is_from_scratch, typical)
    optimizer = build_optimizer(config.lr_multiplier, rates, steps_per_epoch)
    classifier.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    optimizer.build(classifier.trainable_variables)
    return TrainableModel(network, classifier, unfrozen)


def unfrozen_layers(network: str, layer: str, unfreeze: str) -> list[str]:
    """Return the layers of a network that are trained together with the head, in the network's order.

    Args:
        network: `vgg16` or `vgg19`.
        layer: The layer whose values are the codes; the network ends there.
        unfreeze: One of `config.UNFREEZE`.

    Raises:
        InputError: The network has no layers of `unfreeze`.
    """
    from tensorflow_vgg.network import parameter_shapes

    prefixes: dict[str, tuple[str, ...]] = {"head": (), "fc": ("fc",), "conv5": ("fc", "conv5"), "all": ("fc", "conv")}
    layers = [name for name in parameter_shapes(network, layer) if name.startswith(prefixes[unfreeze])]
    if not layers and unfreeze != "head":
        raise InputError(f"{network} up to {layer} has no layers of `unfreeze` {unfreeze}: unfreeze more, or head.")
    return layers


def to_numpy(variable: keras.Variable) -> NDArray[Any]:
    """Return a variable's value, also if each device has a copy of it."""
    import keras

    return np.asarray(keras.ops.convert_to_numpy(variable))
