"""Images per second of `encode` and `predict` with VGG16 up to relu6.

They are compared with the network alone, with the course notebook's loop, and with a plain Ray Data pipeline. Each
peer runs in a process of its own. The network and the notebook are warm, in one process for all rounds; each run of
ours and of Ray Data is a new process with its own Ray. Start-up is excluded for all, and so is the network's first
pass, in which it allocates its memory: our runs are timed from the end of the first shard, Ray Data from the moment at
which its network receives the second batch. By then both have read a few photos ahead.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import (
    find_photos,
    parse_arguments,
    ratio_claim,
    report,
    run_interleaved,
    run_once,
    serve,
    stopwatch,
    warm_process,
    write_archive,
)

from flowers_batch.cluster.restricted_access import restricted_access

if TYPE_CHECKING:
    import tensorflow as tf

ROUNDS = 3
BATCH, NOTEBOOK_BATCH = 32, 10
SHARD_SIZE = 64
PHOTOS = 448
FLOAT32_PHOTOS = 192  # fewer, since float32 takes twice the time
NOTEBOOK_PHOTOS = 100
CLASSES = 2
WEIGHTS = "random:0"


def encode(folder: Path, precision: str, count: int) -> float:
    """Measure images per second of `encode`."""
    import flowers_batch as fb

    config = fb.EncodeConfig(weights=WEIGHTS, precision=precision, batch_size=BATCH, shard_size=SHARD_SIZE)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        fb.encode(write_list(folder, count), out, config)
        return rate(Path(out), count)


def predict(folder: Path) -> float:
    """Measure images per second of `predict`, with the model of `train`."""
    import flowers_batch as fb

    config = fb.PredictConfig(batch_size=BATCH, shard_size=SHARD_SIZE)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        fb.predict(write_list(folder, PHOTOS), out, folder / "model", config)
        return rate(Path(out), PHOTOS)


def rate(out: Path, count: int) -> float:
    """Return images per second of a run by one actor, from the end of its first shard to the end of its last."""
    end_times = sorted(shard.stat().st_mtime for shard in out.glob("*/shard-*.parquet"))
    assert len(end_times) == count // SHARD_SIZE
    return (count - SHARD_SIZE) / (end_times[-1] - end_times[0])


def train(folder: Path) -> float:
    """Train a model for `predict` with random labels, since its accuracy does not matter; return the seconds."""
    import flowers_batch as fb

    with stopwatch() as seconds:
        fb.encode(write_list(folder, SHARD_SIZE), folder / "codes", fb.EncodeConfig(weights=WEIGHTS, batch_size=BATCH))
        labels = folder / "labels.csv"
        drawn = np.random.default_rng(0).permutation(SHARD_SIZE) % CLASSES
        names = [f"{path},class {label}" for path, label in zip(paths(folder, SHARD_SIZE), drawn, strict=True)]
        labels.write_text("\n".join(["path,label", *names]))
        fb.train(folder / "codes", folder / "model", fb.TrainConfig(labels=(str(labels),)))
        return seconds()


def network(folder: Path, precision: str, count: int) -> Callable[[], float]:
    """Return the measurement of the same network, warm, with pixels in memory: the upper bound for all that use it."""
    from flowers_batch.decoding.decode import decode

    pixels = np.stack([decode(path.read_bytes()).pixels for path in paths(folder, count)])
    compute = vgg16(precision)
    compute(pixels[:BATCH])

    def measure() -> float:
        with stopwatch() as seconds:
            for start in range(0, count, BATCH):
                compute(pixels[start : start + BATCH]).numpy()
            return count / seconds()

    return measure


def notebook(folder: Path) -> Callable[[], float]:
    """Return the measurement of the course notebook's loop, warm: scikit-image reads ten photos, then VGG16 runs."""
    from tensorflow_vgg.images import load_image

    chosen = paths(folder, NOTEBOOK_PHOTOS)
    compute = vgg16("float32")

    def batch(start: int) -> None:
        photos = [load_image(path) for path in chosen[start : start + NOTEBOOK_BATCH]]
        compute(np.stack(photos).astype(np.float32) * 255).numpy()

    batch(0)

    def measure() -> float:
        with stopwatch() as seconds:
            for start in range(0, len(chosen), NOTEBOOK_BATCH):
                batch(start)
            return len(chosen) / seconds()

    return measure


class KerasVgg16:
    """The function that a plain Ray Data pipeline maps over its batches: Keras' VGG16 up to `fc1` with its ReLU."""

    def __init__(self) -> None:
        import keras

        full = keras.applications.VGG16(weights=None, include_top=True)
        self._model = keras.Model(full.input, full.get_layer("fc1").output)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the codes of a batch, and the time at which it began."""
        import keras

        began = np.full(len(batch["path"]), time.time())
        pixels = keras.applications.vgg16.preprocess_input(batch["image"].astype(np.float32))
        return {"path": batch["path"], "code": self._model.predict_on_batch(pixels), "began": began}


def ray_data(folder: Path) -> float:
    """Measure a plain Ray Data pipeline: its own reader and writer, and one actor whose TensorFlow uses all cores."""
    import pyarrow.parquet as pq
    import ray
    import ray.data

    cores = os.cpu_count() or 1
    with restricted_access():
        # At least two CPUs: Ray Data needs one to read while the actor occupies the other.
        ray.init(address="local", num_cpus=max(cores, 2), log_to_driver=False)
        read = ray.data.read_images(
            list(map(str, paths(folder, FLOAT32_PHOTOS))), size=(224, 224), mode="RGB", include_paths=True
        )
        mapped = read.map_batches(
            KerasVgg16, batch_size=BATCH, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=max(cores - 1, 1)
        )
        with tempfile.TemporaryDirectory(dir=folder) as out:
            mapped.write_parquet(out)
            end = time.time()
            began = np.sort(pq.read_table(out, columns=["began"])["began"].to_numpy())
        ray.shutdown()
    assert len(began) == FLOAT32_PHOTOS
    return (FLOAT32_PHOTOS - BATCH) / (end - began[BATCH])


def vgg16(precision: str) -> Callable[[np.ndarray], tf.Tensor]:
    """Return VGG16 up to relu6 as a plain `tf.function`."""
    from tensorflow_vgg import weights
    from tensorflow_vgg.network import build

    model = build("vgg16", "relu6", weights.load(weights.find(WEIGHTS), "vgg16", "relu6"), precision)
    import tensorflow as tf  # after `build`, which sets its log level

    return tf.function(model, jit_compile=False)


def paths(folder: Path, count: int) -> list[Path]:
    """Return the paths of the first photos of the archive."""
    return sorted((folder / "photos").iterdir())[:count]


def write_list(folder: Path, count: int) -> Path:
    """Write a list of the first photos of the archive, as input of `encode`."""
    path = folder / f"first-{count}.txt"
    path.write_text("\n".join(map(str, paths(folder, count))))
    return path


def main() -> None:
    """Compare all peers, or be one of them."""
    options = parse_arguments(
        __doc__,
        peer={"help": "be this peer; the benchmark starts its peers with this option"},
        folder={"type": Path, "help": "a peer's folder, with the photos in it"},
        precision={"help": "a peer's precision"},
        count={"type": int, "help": "the number of photos that a peer measures"},
    )
    folder = options.folder
    peers = {
        "encode": lambda: partial(encode, folder, options.precision, options.count),
        "predict": lambda: partial(predict, folder),
        "train": lambda: partial(train, folder),
        "network": lambda: network(folder, options.precision, options.count),
        "notebook": lambda: notebook(folder),
        "ray_data": lambda: partial(ray_data, folder),
    }
    if options.peer:
        serve(peers[options.peer]())
    else:
        compare(options.photos)


def compare(folder_of_photos: Path | None) -> None:
    """Compare all peers, and report."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        write_archive(find_photos(folder_of_photos, folder), folder / "photos", PHOTOS)

        def command(peer: str, precision: str = "float32", count: int = FLOAT32_PHOTOS) -> tuple[object, ...]:
            return (__file__, "--peer", peer, "--folder", folder, "--precision", precision, "--count", count)

        run_once(*command("train"))
        precision = json.loads((folder / "codes/job.json").read_text())["fingerprint"]["precision"]
        rates = run_interleaved(
            ROUNDS,
            network=stack.enter_context(warm_process(*command("network", precision, PHOTOS))),
            encode=partial(run_once, *command("encode", "auto", PHOTOS)),
            predict=partial(run_once, *command("predict")),
            notebook=stack.enter_context(warm_process(*command("notebook"))),
            ray_data=partial(run_once, *command("ray_data")),
            encode_float32=partial(run_once, *command("encode")),
            network_float32=stack.enter_context(warm_process(*command("network"))),
        )
    claims = [
        ratio_claim(f"encode over the warm network alone, {precision}", rates["encode"], rates["network"], 0.95),
        ratio_claim("encode over the course notebook's loop, float32", rates["encode_float32"], rates["notebook"], 1.1),
        ratio_claim(f"predict over encode, {precision}", rates["predict"], rates["encode"], 0.95),
    ]
    bfloat16_claims = [
        ratio_claim("encode in bfloat16 over the course notebook's loop", rates["encode"], rates["notebook"], 2.0),
        ratio_claim("encode in bfloat16 over a plain Ray Data pipeline", rates["encode"], rates["ray_data"], 2.0),
    ]
    figures: dict[str, object] = {}
    if precision == "bfloat16":
        claims += bfloat16_claims
    else:
        for claim in bfloat16_claims:
            figures[claim.claim] = f"not measured: this CPU has no bfloat16 (in {precision}: {claim.value:.2f})"
    alone = ratio_claim("", rates["encode_float32"], rates["network_float32"], 0)
    figures["encode over the warm network alone, float32"] = round(alone.value, 3)
    figures |= {f"{name}, images/s": f"{statistics.median(each):.2f}" for name, each in rates.items()}
    report("encode", claims, figures)


if __name__ == "__main__":
    main()
