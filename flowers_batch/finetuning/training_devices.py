"""The devices that a network is trained on, each with an equal part of every batch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras


class TrainingDevices:
    """The devices that a network is trained on, each with a copy of it and an equal part of each batch.

    Training on them gives the same numbers each time.

    Args:
        count: How many: GPUs where there are any.
    """

    def __init__(self, count: int):
        import keras

        self._count, self._strategy = count, None
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_op_determinism()
            if count > 1:
                devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
                self._strategy = tf.distribute.MirroredStrategy([device.name for device in devices[:count]])
        elif count > 1:
            keras.distribution.set_distribution(keras.distribution.DataParallel())

    def scope(self) -> AbstractContextManager[Any]:
        """Where networks are to be made and trained."""
        return self._strategy.scope() if self._strategy else nullcontext()

    def step(self, model: keras.Model, *arrays: NDArray[Any]) -> dict[str, float]:
        """A step of training on a batch; of one that has no equal parts, the last photos are left out.

        Args:
            model: Compiled, made in the scope.
            arrays: What it takes: pixels, targets and weights [N, ...].

        Returns:
            The loss and the metrics of the batch, before the step.
        """
        arrays = tuple(array[: len(array) // self._count * self._count] for array in arrays)
        if not len(arrays[0]):
            return {}
        if self._strategy is None:
            return model.train_on_batch(*arrays, return_dict=True)
        if model.train_function is None:
            model.test_on_batch(*arrays)  # makes the metrics, which cannot be made while a copy is trained
            model.make_train_function()
        parts = [np.split(array, self._count) for array in arrays]
        shared = tuple(
            self._strategy.experimental_distribute_values_from_function(
                lambda context, part=part: part[context.replica_id_in_sync_group]
            )
            for part in parts
        )
        model.reset_metrics()
        return {name: float(value) for name, value in model.train_function(iter([shared])).items()}

    def predict(self, model: keras.Model, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """What a model gives for a batch: [N, ...]; each device computes all of it."""
        return model.predict_on_batch(pixels)[: len(pixels)]
