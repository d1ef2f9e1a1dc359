"""What this machine's hardware can do, and preparing TensorFlow to use it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flowers_batch.errors import InputError

if TYPE_CHECKING:
    pass

# What TensorFlow, JAX and CUDA call it when a batch does not fit.
_OUT_OF_MEMORY = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "out of memory", "OOM")


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
    if not init_tensorflow() and gpu:
        raise InputError(
            "Ray gave an actor a GPU that TensorFlow cannot see: install the [gpu] extra "
            "(pip install 'flowers-batch[gpu]') where the actors run, or hide the GPU by CUDA_VISIBLE_DEVICES= (empty)."
        )
    import tensorflow as tf

    with suppress(RuntimeError):  # a process that has used TensorFlow before, as no actor has, keeps its threads
        tf.config.threading.set_intra_op_parallelism_threads(threads)


def init_tensorflow() -> int:
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


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that a batch did not fit into the device's memory."""
    told = f"{type(error).__name__}: {error}"
    return any(sign in told for sign in _OUT_OF_MEMORY)
