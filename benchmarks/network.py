"""Images per second of VGG16 up to relu6 on this machine's device, by batch size and precision.

The network is compared with a product of large matrices, which shows what the device can do. Copies to and from the
device are timed, and the network is also fed with JPEG files. Neither Ray nor TensorFlow is needed: `KERAS_BACKEND=jax
python network.py` measures a GPU that only JAX can use.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import keras
import numpy as np
import pyarrow as pa
from layers import multiply_adds

from flowers_batch.config import EncodeConfig
from flowers_batch.decoding.groups import requests_of
from flowers_batch.decoding.outputs import SquarePixels
from flowers_batch.decoding.pool import DecodePool, PoolSettings
from flowers_batch.encoding.feed import Feed, count_buffers
from flowers_batch.encoding.micro_batcher import CPU_BATCH, GPU_BATCH, MicroBatcher, compiled, pixel_type
from flowers_batch.sources.opening import open_source
from tensorflow_vgg import weights
from tensorflow_vgg.network import build

LAYER = "relu6"
SECONDS = 6.0  # approximate duration of each measurement
FILES = 1000  # different ones
MATRIX_SIDE = 4096  # of the square matrices
# Dense bfloat16 peaks in FLOP/s, from NVIDIA's data sheets.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12}
TARGET_DEVICE = "H200"
TARGETS = 13_000, 8_000  # images/s on that device: from pixels in memory, and from JPEG bytes
CPU_SIZES, GPU_SIZES = (1, 8, CPU_BATCH), (32, 64, 128, GPU_BATCH, 512)


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


def fed_rate(network: MicroBatcher, precision: str, archive: Path, count: int, workers: int) -> float:
    """Feed files to the network as an actor does, from JPEG bytes to codes; return images/s.

    Args:
        network: The network.
        precision: Which it computes in.
        archive: A folder of files, each of which is taken as often as it needs to be.
        count: Images.
        workers: Processes that decode.
    """
    source = open_source(archive)
    rows = pa.Table.from_batches(source.batches())
    requests = requests_of(rows.take(pa.array(np.arange(count) % len(rows))))
    output = SquarePixels(np.dtype(pixel_type(precision)).name)
    settings = PoolSettings(workers, EncodeConfig.max_pixels, EncodeConfig.image_timeout)
    with DecodePool(source, output, settings, count_buffers(workers, network.size) * network.size) as pool:
        feed = Feed(network, pool, network.size, "float16")

        def work(images: pa.RecordBatch) -> None:
            for fed in feed.run(images, {}):
                assert fed.rows["reason"].null_count == len(fed.rows)

        work(requests.slice(0, 2 * network.size))  # warms up
        with common.stopwatch() as seconds:
            work(requests)
            rate = count / seconds()
        feed.end()
    return rate


def vgg(precision: str) -> keras.Model:
    """Return VGG16 up to relu6 with random weights."""
    return build("vgg16", LAYER, weights.load(weights.find("random:0"), "vgg16", LAYER), precision)


def main() -> None:
    """Measure each precision and batch size, and report."""
    arguments = common.parse_arguments(
        __doc__,
        workers={"type": int, "default": os.cpu_count(), "help": "processes that decode (default: one per core)"},
    )
    name = device()
    sizes = CPU_SIZES if name.lower() == "cpu" else GPU_SIZES
    flop = 2 * multiply_adds("vgg16", LAYER)
    nominal = next((flops for known, flops in PEAKS.items() if known in name), None)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        found_photos = common.find_photos(arguments.photos, Path(scratch))
        archive = common.write_archive(found_photos, Path(scratch, "photos"), min(FILES, len(found_photos)))
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
                    row["images/s from JPEG bytes"] = fed_rate(network, precision, archive, count, arguments.workers)
                rows.append(
                    {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
                )
                print(rows[-1], flush=True)
    claims = []
    if TARGET_DEVICE in name:
        for key, target in zip(("images/s", "images/s from JPEG bytes"), TARGETS, strict=True):
            best = max(row[key] for row in rows if key in row)
            claims.append(common.Claim(f"{TARGET_DEVICE}: {key}", best, target))
    figures = {"device": name, "backend": keras.backend.backend(), "decode workers": arguments.workers, "rows": rows}
    common.report("network", claims, figures)


if __name__ == "__main__":
    main()
