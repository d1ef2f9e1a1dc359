"""A compiled network that splits a batch into as many passes as the device's memory needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.devices import is_out_of_memory

if TYPE_CHECKING:
    import keras

CPU_BATCH = 32  # as fast as any larger batch, which would take more memory
GPU_BATCH = 256  # keeps today's GPUs busy; one with less memory takes it in parts


def pixel_type(precision: str, *, are_rounded: bool = False) -> type[np.float32] | type[np.uint8]:
    """Return the type of the network's input: bytes suffice where it computes in bfloat16, with 8 bits of precision.

    Args:
        precision: What it computes in.
        are_rounded: Whether it gets bytes in any case.
    """
    return np.uint8 if are_rounded or precision == "bfloat16" else np.float32


class MicroBatcher:
    """A network that takes a batch in as many passes as the device's memory needs.

    Args:
        run: One pass: pixels [N, 224, 224, 3] to codes [N, width], which the device may still be
            computing when it returns.
        size: Images in a pass, at first; halved whenever one does not fit.
    """

    def __init__(self, run: Callable[[NDArray[Any]], Any], size: int):
        self._run, self.size = run, size

    def __call__(self, pixels: NDArray[Any]) -> Any:
        """Return the codes of a batch: an array, or a value that `np.asarray` waits for and converts."""
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
        """Find the size that fits by computing the codes of `pixels`; this also compiles the network."""
        while True:
            try:
                np.asarray(self(pixels))
            except Exception as error:  # some devices raise only when the codes are fetched
                self._halve(error)
            else:
                return

    def _halve(self, error: Exception) -> None:
        if self.size == 1 or not is_out_of_memory(error):
            raise error
        self.size //= 2


def compiled(model: keras.Model, dtype: type[np.generic]) -> Callable[[NDArray[Any]], Any]:
    """Return a model as a compiled function, which on a GPU returns before the codes are computed.

    Args:
        model: Pixels [N, 224, 224, 3] to codes.
        dtype: Of the pixels, which are copied to the device as they are.
    """
    import keras

    if keras.backend.backend() == "jax":  # compiled once per batch size
        import jax

        state = [variable.value for variable in model.variables]
        run = jax.jit(lambda state, pixels: model.stateless_call(state, [], pixels)[0])
        return lambda pixels: run(state, pixels)
    import tensorflow as tf

    # Without XLA, which on CPUs is slower than oneDNN's kernels and compiles once per batch size.
    return tf.function(
        lambda pixels: model(pixels, training=False),
        input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), dtype)],
        jit_compile=False,
    )
