"""Data-parallel training on the devices of one machine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras


class TrainingDevices:
    """Devices that each hold a copy of a network and train it on an equal part of each batch.

    Training is deterministic.

    Args:
        count: How many devices: GPUs, if there are any.
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
        """Return the context in which to build and train networks."""
        return self._strategy.scope() if self._strategy else nullcontext()

    def step(self, model: keras.Model, *arrays: NDArray[Any]) -> dict[str, float]:
        """Train on a batch; the last photos are left out, if it has no equal parts.

        Args:
            model: Compiled, and built in the scope.
            arrays: Pixels, targets and weights, [N, ...] each.

        Returns:
            Loss and metrics of the batch before the step; nothing, if the batch is smaller than the number of devices.
        """
        arrays = tuple(array[: len(array) // self._count * self._count] for array in arrays)
        if not len(arrays[0]):
            return {}
        if self._strategy is None:
            return model.train_on_batch(*arrays, return_dict=True)
        if model.train_function is None:
            model.test_on_batch(*arrays)  # creates the metrics, which cannot be created in a replica
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
        """Return a model's outputs [N, ...] for a batch; each device computes all of them."""
        return model.predict_on_batch(pixels)[: len(pixels)]
