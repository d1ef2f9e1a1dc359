"""What this machine's hardware can do, and preparing TensorFlow to use it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from flowers_batch.errors import InputError

_CPU_DESCRIPTION = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # of x86 processors that multiply bfloat16
_BFLOAT16_CAPABILITY = (8, 0)  # NVIDIA's compute capability from which tensor cores multiply bfloat16 (Ampere)
# How TensorFlow, JAX and CUDA say that a batch does not fit.
_OUT_OF_MEMORY = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "out of memory", "OOM")

_hides_startup_messages = False  # whether `init_tensorflow` may redirect this process's standard error


def hardware_precision(gpu: bool, cpu_description: Path = _CPU_DESCRIPTION) -> str:
    """Return `bfloat16` where the hardware computes in it, else `float32`.

    Args:
        gpu: Whether the first GPU computes, or the CPU.
        cpu_description: Linux' description of the processors.
    """
    if gpu:
        import tensorflow as tf

        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        return "bfloat16" if details.get("compute_capability", (0, 0)) >= _BFLOAT16_CAPABILITY else "float32"
    try:
        flags = cpu_description.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return "float32"
    return "float32" if _BFLOAT16_FLAGS.isdisjoint(flags) else "bfloat16"


def gpu_memory() -> int:
    """Return the bytes of GPU memory that TensorFlow has allocated in this process; 0 without a GPU."""
    import tensorflow as tf

    return tf.config.experimental.get_memory_info("GPU:0")["current"] if tf.config.list_physical_devices("GPU") else 0


def prepare_device(threads: int, gpu: bool) -> None:
    """Prepare TensorFlow in an actor's process: how much of a GPU's memory and how many cores it takes.

    It changes settings of the whole process, so it must be called only in a process of our own.

    Args:
        threads: Threads that compute one operation.
        gpu: Whether TensorFlow must see a GPU.

    Raises:
        InputError: TensorFlow sees no GPU although it must.
    """
    hide_startup_messages()
    if not init_tensorflow() and gpu:
        raise InputError(
            "Ray gave an actor a GPU that TensorFlow cannot see: install the [gpu] extra "
            "(pip install 'flowers-batch[gpu]') where the actors run, or hide the GPU by CUDA_VISIBLE_DEVICES= (empty)."
        )
    import tensorflow as tf

    with suppress(RuntimeError):  # TensorFlow was used before, which happens in tests only: it keeps its threads
        tf.config.threading.set_intra_op_parallelism_threads(threads)


def hide_startup_messages() -> None:
    """Have TensorFlow start without messages in this process, which must be ours: an actor's or the command's.

    Sets an environment variable, and lets `init_tensorflow` redirect file descriptor 2 while TensorFlow starts.
    """
    global _hides_startup_messages
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _hides_startup_messages = True


def init_tensorflow() -> int:
    """Import TensorFlow, have it allocate each GPU's memory as needed instead of all at once, and count the GPUs."""
    # The environment variable alone does not silence what TensorFlow writes before it reads it.
    with _stderr_dropped() if _hides_startup_messages else nullcontext():
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
    for device in devices:
        with suppress(RuntimeError):  # the GPU is in use already
            tf.config.experimental.set_memory_growth(device, True)
    return len(devices)


@contextmanager
def _stderr_dropped() -> Iterator[None]:
    """Drop what libraries in any language write to standard error."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an exception says that a batch did not fit into the device's memory."""
    text = f"{type(error).__name__}: {error}"
    return any(sign in text for sign in _OUT_OF_MEMORY)
