"""VGG16 to relu6 on this machine's device: images/s by batch size and precision, copies, and fed with JPEG files.

Needs neither Ray nor TensorFlow: `KERAS_BACKEND=jax python network.py` measures a GPU that only JAX can use, and
`--actors 4` also what as many processes reach that share it and the cores (with XLA_PYTHON_CLIENT_PREALLOCATE=false).
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
SECONDS = 6.0  # of each measurement, about
SIDE = 4096  # of the square matrices whose product shows what the device can do
# Dense bfloat16 peaks in FLOP/s, from NVIDIA's data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12}
AIMED_AT = "H200"  # and what it is to reach, in images/s: from pixels in memory, and from JPEG bytes
AIMS = 13_000, 8_000
START_SECONDS = 300.0  # in which a process is to have its network
_START: list[Barrier] = []  # at which processes that share a device wait for each other
CPU_SIZES, GPU_SIZES = (1, 8, CPU_BATCH), (32, 64, 128, GPU_BATCH, 512)


class Memory:
    """Files in memory, as a source of images."""

    def __init__(self, files: list[bytes]):
        self.files = files

    def read(self, image: Image) -> bytes:
        """A file's bytes."""
        return self.files[int(image.path)]


def device() -> str:
    """The name of what the backend computes on."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(found[0])["device_name"] if found else "cpu"


def rate(run: Callable[[Any], Any], argument: Any) -> float:
    """Calls a second, each begun before the last one's result is fetched; the first ones are not counted."""
    np.asarray(run(argument))
    began = time.perf_counter()
    np.asarray(run(argument))
    calls = max(2, round(SECONDS / (time.perf_counter() - began)))
    began, last = time.perf_counter(), run(argument)
    for _ in range(calls - 1):
        last, before = run(argument), last
        np.asarray(before)
    np.asarray(last)
    return calls / (time.perf_counter() - began)


def matrix_product_rate(precision: str) -> float:
    """FLOP/s of a product of large matrices: what this device can do."""
    square = keras.ops.ones((SIDE, SIDE), precision)
    return rate(lambda matrix: keras.ops.matmul(matrix, square)[:1, :1].__array__(), square) * 2 * SIDE**3


def copy_seconds(pixels: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Seconds that a batch's pixels take to the device, and its codes back."""
    there = []
    for _ in range(5):
        began = time.perf_counter()
        tensor = keras.ops.convert_to_tensor(pixels)
        np.asarray(tensor[0, 0, 0])  # waits
        there.append(time.perf_counter() - began)
    back = []
    for _ in range(5):
        tensor = keras.ops.convert_to_tensor(codes) + 0
        np.asarray(tensor[0, :1])
        began = time.perf_counter()
        np.asarray(tensor)
        back.append(time.perf_counter() - began)
    return min(there), min(back)


def fed(network: MicroBatcher, size: int, precision: str, files: list[bytes], threads: int) -> tuple[float, float]:
    """When feeding files began and ended, from JPEG bytes to codes, as an actor does it."""
    settings = FeedSettings(size, pixel_type(precision), "float16", threads, 10**9)
    feed = Feed(network, Memory(files), settings)
    images = [Image(str(number)) for number in range(len(files))]
    for batch in feed.run(images[: 2 * size], {}, {}):
        assert all(image.failure is None for image in batch)
    if _START:
        _START[0].wait()
    began = time.perf_counter()
    assert sum(len(batch) for batch in feed.run(images, {}, {})) == len(files)
    return began, time.perf_counter()


def wait_at(start: Barrier) -> None:
    """Says where this process is to wait for the others before it begins to feed."""
    _START.append(start)


def fed_rate(actors: int, size: int, precision: str, files: list[bytes], threads: int) -> float:
    """Images/s of processes that share the device, and have so many of the files and threads each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(actors, context, wait_at, (context.Barrier(actors, timeout=START_SECONDS),)) as pool:
        parts = [files[part::actors] for part in range(actors)]
        asked = [pool.submit(fed_alone, size, precision, part, max(1, threads // actors)) for part in parts]
        begins, ends = zip(*(each.result() for each in asked), strict=True)
    return len(files) / (max(ends) - min(begins))


def fed_alone(size: int, precision: str, files: list[bytes], threads: int) -> tuple[float, float]:
    """`fed`, with a network of its own."""
    return fed(MicroBatcher(compiled(vgg(precision), pixel_type(precision)), size), size, precision, files, threads)


def vgg(precision: str) -> keras.Model:
    """VGG16 to relu6, with random weights."""
    return build("vgg16", LAYER, weights.load(weights.find("random:0"), "vgg16", LAYER), precision)


def main() -> None:
    """Measures each precision and batch size, prints a table and a JSON line."""
    arguments = common.parse_arguments(
        __doc__,
        threads={"type": int, "default": os.cpu_count(), "help": "threads that decode (default: the cores)"},
        actors={"type": int, "default": 1, "help": "also measure as many processes that share the device"},
    )
    name = device()
    sizes = CPU_SIZES if name.lower() == "cpu" else GPU_SIZES
    flop = 2 * multiply_adds("vgg16", LAYER)
    nominal = next((peak for known, peak in PEAKS.items() if known in name), None)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        sources = [path.read_bytes() for path in common.find_photos(arguments.photos, Path(scratch))]
        for precision in ("float32", "bfloat16"):
            able = matrix_product_rate(precision)
            model = vgg(precision)
            for size in sizes:
                pixels = np.random.default_rng(0).integers(0, 256, (size, *model.input_shape[1:]))
                pixels = pixels.astype(pixel_type(precision))
                network = MicroBatcher(compiled(model, pixels.dtype.type), size)
                found = rate(network, pixels) * size
                there, back = copy_seconds(pixels, np.zeros((size, *model.output_shape[1:]), np.float32))
                row = {
                    "precision": precision,
                    "batch": size,
                    "images/s": found,
                    "of a matrix product": found * flop / able,
                }
                row |= {"of the nominal bf16 peak": found * flop / nominal} if nominal else {}
                row |= {"copy in, ms": there * 1e3, "copy out, ms": back * 1e3}
                if size == sizes[-1]:
                    count = max(3 * size, round(SECONDS * found))
                    # Equal files would be decoded once only.
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
    if AIMED_AT in name:
        for key, aim in zip(("images/s", "images/s from JPEG bytes"), AIMS, strict=True):
            best = max(value for row in rows for name, value in row.items() if name.partition(", ")[0] == key)
            claims.append(common.Claim(f"{AIMED_AT}: {key}", best, aim))
    figures = {"device": name, "backend": keras.backend.backend(), "threads": arguments.threads, "rows": rows}
    common.report("network", claims, figures)


if __name__ == "__main__":
    main()
