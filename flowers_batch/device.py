"""What a machine's hardware can do: the precision it computes in, and passes of a network through it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.config import InputError

if TYPE_CHECKING:
    import keras

CPU_BATCH = 32  # a CPU is as fast with 8; more would only take more memory
GPU_BATCH = 256  # keeps any of today's GPUs busy; one with less memory takes it in parts
# What TensorFlow, JAX and CUDA call it when a batch does not fit.
_OUT_OF_MEMORY = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "out of memory", "OOM")


def pixel_type(precision: str) -> type[np.float32] | type[np.uint8]:
    """What pixels are handed to the network in: rounded to a byte where it computes in no more digits anyway."""
    return np.uint8 if precision == "bfloat16" else np.float32


def hardware_precision(gpu: bool) -> str:
    """`bfloat16` where the hardware computes in it, `float32` elsewhere."""
    if gpu:
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        return "bfloat16" if details.get("compute_capability", (0, 0)) >= (8, 0) else "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return "float32"
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"


def gpu_memory() -> int:
    """Bytes of its GPU's memory that TensorFlow has given out in this process; 0 without a GPU."""
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["current"] if tf.config.list_physical_devices("GPU") else 0


def prepare_device(threads: int, gpu: bool) -> None:
    """Readies TensorFlow in a process that has not used it: how much of a GPU, and how many cores it takes.

    Raises:
        InputError: It sees no GPU although it should.
    """
    if not share_gpus() and gpu:
        raise InputError(
            "Ray gave an actor a GPU that TensorFlow cannot see: install the [gpu] extra "
            "(pip install 'flowers-batch[gpu]') where the actors run, or hide the GPU by CUDA_VISIBLE_DEVICES= (empty)."
        )
    import tensorflow as tf

    with suppress(RuntimeError):  # a process that has used TensorFlow before, as no actor has, keeps its threads
        tf.config.threading.set_intra_op_parallelism_threads(threads)


def share_gpus() -> int:
    """Loads TensorFlow, quietly, keeps it from taking the whole memory of each GPU at once, and counts them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _without_stderr():  # before it reads that setting, TensorFlow tells at length which libraries it has found
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
    for device in devices:
        with suppress(RuntimeError):  # it has begun to use the GPU
            tf.config.experimental.set_memory_growth(device, True)
    return len(devices)


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Drops what libraries write to the standard error stream, whatever language they are written in."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


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


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that a batch did not fit into the device's memory."""
    told = f"{type(error).__name__}: {error}"
    return any(sign in told for sign in _OUT_OF_MEMORY)


class Passes:
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
