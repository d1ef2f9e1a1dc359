"""Images per second of VGG16 up to relu6 on this machine's device, by batch size and precision.

The network is compared with a product of large matrices, which shows what the device can do. Copies to and from the
device are timed, and the network is also fed with JPEG files. Neither Ray nor TensorFlow is needed: `KERAS_BACKEND=jax
python network.py` measures a GPU that only JAX can use. `--actors 4` also measures four processes that share the device
and the cores (set XLA_PYTHON_CLIENT_PREALLOCATE=false).
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import common
import keras
import numpy as np
from layers import multiply_adds

from flowers_batch.encoding.feed import Feed, FeedSettings
from flowers_batch.encoding.micro_batcher import CPU_BATCH, GPU_BATCH, MicroBatcher, compiled, pixel_type
from flowers_batch.sources.images import Image
from tensorflow_vgg import weights
from tensorflow_vgg.network import build

LAYER = "relu6"
SECONDS = 6.0  # approximate duration of each measurement
MATRIX_SIDE = 4096  # of the square matrices
# Dense bfloat16 peaks in FLOP/s, from NVIDIA's data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12}
TARGET_DEVICE = "H200"
TARGETS = 13_000, 8_000  # images/s on that device: from pixels in memory, and from JPEG bytes
START_SECONDS = 300.0  # for a process to build its network
_START: list[Barrier] = []  # where processes that share a device wait for each other
CPU_SIZES, GPU_SIZES = (1, 8, CPU_BATCH), (32, 64, 128, GPU_BATCH, 512)


class MemorySource:
    """Files in memory, as a source of images."""

    def __init__(self, files: list[bytes]):
        self.files = files

    def read(self, image: Image) -> bytes:
        """Return a file's bytes."""
        return self.files[int(image.path)]


def device() -> str:
    """Return the name of the device on which the backend computes."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(found[0])["device_name"] if found else "cpu"


def rate(run: Callable[[Any], Any], argument: Any) -> float:
    """Return calls per second after a warm-up; each call begins before the result of the previous one is fetched."""
    np.asarray(run(argument))
    start = time.perf_counter()
    np.asarray(run(argument))
    calls = max(2, round(SECONDS / (time.perf_counter() - start)))
    start, last = time.perf_counter(), run(argument)
    for _ in range(calls - 1):
        last, before = run(argument), last
        np.asarray(before)
    np.asarray(last)
    return calls / (time.perf_counter() - start)


def matrix_product_rate(precision: str) -> float:
    """Return the FLOP/s of a product of large matrices."""
    square = keras.ops.ones((MATRIX_SIDE, MATRIX_SIDE), precision)
    return rate(lambda matrix: keras.ops.matmul(matrix, square)[:1, :1].__array__(), square) * 2 * MATRIX_SIDE**3


def copy_seconds(pixels: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Return the seconds to copy a batch's pixels to the device, and its codes back."""
    to_device = []
    for _ in range(5):
        began = time.perf_counter()
        tensor = keras.ops.convert_to_tensor(pixels)
        np.asarray(tensor[0, 0, 0])  # waits for the copy
        to_device.append(time.perf_counter() - began)
    from_device = []
    for _ in range(5):
        tensor = keras.ops.convert_to_tensor(codes) + 0
        np.asarray(tensor[0, :1])
        began = time.perf_counter()
        np.asarray(tensor)
        from_device.append(time.perf_counter() - began)
    return min(to_device), min(from_device)


def fed(network: MicroBatcher, size: int, precision: str, files: list[bytes], threads: int) -> tuple[float, float]:
    """Feed files to the network as an actor does, from JPEG bytes to codes; return the times of start and end."""
    settings = FeedSettings(size, pixel_type(precision), "float16", threads, 10**9)
    feed = Feed(network, MemorySource(files), settings)
    images = [Image(str(number)) for number in range(len(files))]
    for batch in feed.run(images[: 2 * size], {}, {}):
        assert all(image.failure is None for image in batch)
    if _START:
        _START[0].wait()
    began = time.perf_counter()
    assert sum(len(batch) for batch in feed.run(images, {}, {})) == len(files)
    return began, time.perf_counter()


def wait_at(start: Barrier) -> None:
    """Set the barrier at which this process waits for the others before it begins to feed."""
    _START.append(start)


def fed_rate(actors: int, size: int, precision: str, files: list[bytes], threads: int) -> float:
    """Return the images/s of several processes that share the device, the files and the threads."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(actors, context, wait_at, (context.Barrier(actors, timeout=START_SECONDS),)) as pool:
        parts = [files[part::actors] for part in range(actors)]
        futures = [pool.submit(fed_alone, size, precision, part, max(1, threads // actors)) for part in parts]
        starts, ends = zip(*(each.result() for each in futures), strict=True)
    return len(files) / (max(ends) - min(starts))


def fed_alone(size: int, precision: str, files: list[bytes], threads: int) -> tuple[float, float]:
    """Call `fed` with a network of its own."""
    return fed(MicroBatcher(compiled(vgg(precision), pixel_type(precision)), size), size, precision, files, threads)


def vgg(precision: str) -> keras.Model:
    """Return VGG16 up to relu6 with random weights."""
    return build("vgg16", LAYER, weights.load(weights.find("random:0"), "vgg16", LAYER), precision)


def main() -> None:
    """Measure each precision and batch size, and report."""
    arguments = common.parse_arguments(
        __doc__,
        threads={"type": int, "default": os.cpu_count(), "help": "decoding threads (default: one per core)"},
        actors={"type": int, "default": 1, "help": "also measure this many processes that share the device"},
    )
    name = device()
    sizes = CPU_SIZES if name.lower() == "cpu" else GPU_SIZES
    flop = 2 * multiply_adds("vgg16", LAYER)
    nominal = next((flops for known, flops in PEAKS.items() if known in name), None)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        sources = [path.read_bytes() for path in common.find_photos(arguments.photos, Path(scratch))]
        for precision in ("float32", "bfloat16"):
            peak = matrix_product_rate(precision)
            model = vgg(precision)
            for size in sizes:
                pixels = np.random.default_rng(0).integers(0, 256, (size, *model.input_shape[1:]))
                pixels = pixels.astype(pixel_type(precision))
                network = MicroBatcher(compiled(model, pixels.dtype.type), size)
                found = rate(network, pixels) * size
                copy_in, copy_out = copy_seconds(pixels, np.zeros((size, *model.output_shape[1:]), np.float32))
                row = {
                    "precision": precision,
                    "batch": size,
                    "images/s": found,
                    "of a matrix product": found * flop / peak,
                }
                row |= {"of the nominal bf16 peak": found * flop / nominal} if nominal else {}
                row |= {"copy in, ms": copy_in * 1e3, "copy out, ms": copy_out * 1e3}
                if size == sizes[-1]:
                    count = max(3 * size, round(SECONDS * found))
                    # Different bytes, since equal files are decoded only once.
                    files = [sources[n % len(sources)] + b"%d" % n for n in range(count)]
                    began, ended = fed(network, size, precision, files, arguments.threads)
                    row["images/s from JPEG bytes"] = count / (ended - began)
                    if (actors := arguments.actors) > 1:
                        shared = fed_rate(actors, size, precision, files, arguments.threads)
                        row[f"images/s from JPEG bytes, {actors} actors"] = shared
                rows.append(
                    {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
                )
                print(rows[-1], flush=True)
    claims = []
    if TARGET_DEVICE in name:
        for key, target in zip(("images/s", "images/s from JPEG bytes"), TARGETS, strict=True):
            best = max(value for row in rows for name, value in row.items() if name.partition(", ")[0] == key)
            claims.append(common.Claim(f"{TARGET_DEVICE}: {key}", best, target))
    figures = {"device": name, "backend": keras.backend.backend(), "threads": arguments.threads, "rows": rows}
    common.report("network", claims, figures)


if __name__ == "__main__":
    main()
