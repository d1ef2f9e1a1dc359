"""A compiled network that splits a batch into as many passes as the device's memory allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras
from flowers_batch.devices import is_out_of_memory

CPU_BATCH = 32  # a CPU is as fast with 8; more would only take more memory
GPU_BATCH = 256  # keeps any of today's GPUs busy; one with less memory takes it in parts


def pixel_type(precision: str) -> type[np.float32] | type[np.uint8]:
    """What pixels are handed to the network in: rounded to a byte where it computes in no more digits anyway."""
    return np.uint8 if precision == "bfloat16" else np.float32


class MicroBatcher:
    """A network that takes a batch in as many passes as the device's memory asks for.

    Args:
        run: One pass: pixels [N, 224, 224, 3] to codes [N, width], which may still be computed when it returns.
        size: Images in a pass, at first; halved whenever one does not fit.
    """

    def __init__(self, run: Callable[[NDArray[Any]], Any], size: int):
        self._run, self.size = run, size

    def __call__(self, pixels: NDArray[Any]) -> Any:
        """The codes of a batch: an array, or what `np.asarray` waits for and makes one of."""
        parts: list[Any] = []
        first = 0
        while first < len(pixels):
            try:
                parts.append(self._run(pixels[first : first + self.size]))
            except Exception as error:
                self._halve(error)
            else:
                first += self.size
        return parts[0] if len(parts) == 1 else np.concatenate([np.asarray(part) for part in parts])

    def fit(self, pixels: NDArray[Any]) -> None:
        """Finds the size that fits, by passes with such pixels; also compiles what is compiled at first use."""
        while True:
            try:
                np.asarray(self(pixels))
            except Exception as error:  # some devices tell only when the codes are asked for
                self._halve(error)
            else:
                return

    def _halve(self, error: Exception) -> None:
        if self.size == 1 or not is_out_of_memory(error):
            raise error
        self.size //= 2


def compiled(model: keras.Model, dtype: type[np.generic]) -> Callable[[NDArray[Any]], Any]:
    """A model as one call, which on a GPU returns before all is computed; compiled once, whatever the batch size.

    Args:
        model: Pixels [N, 224, 224, 3] to codes.
        dtype: Of the pixels; they cross to the device as they are.
    """
    import keras

    if keras.backend.backend() == "jax":  # compiled once a batch size
        import jax

        state = [variable.value for variable in model.variables]
        run = jax.jit(lambda state, pixels: model.stateless_call(state, [], pixels)[0])
        return lambda pixels: run(state, pixels)
    import tensorflow as tf

    # Without XLA, which on CPUs is slower than oneDNN's kernels and compiles anew for each batch size.
    return tf.function(
        lambda pixels: model(pixels, training=False),
        input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), dtype)],
        jit_compile=False,
    )
