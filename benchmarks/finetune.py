"""Fine-tuning of VGG16: photos/s of its steps, how they are fed, and whether a killed training ends like any other.

Needs neither Ray nor TensorFlow: `KERAS_BACKEND=jax python finetune.py` measures a GPU that only JAX can use, for which
`XLA_FLAGS=--xla_gpu_deterministic_ops=true` makes it give the same numbers each time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import keras
import numpy as np
import pyarrow as pa
from network import device

from flowers_batch.classifier.head import Head
from flowers_batch.classifier.normalization import STANDARDIZED, Normalization
from flowers_batch.config import EncodeConfig, FinetuneConfig, TrainConfig
from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.pool import PoolSettings
from flowers_batch.decoding.sandbox import prepare_libraries
from flowers_batch.encoding.networks import weights_identity
from flowers_batch.finetuning.augmentation import RandomResizedCrop
from flowers_batch.finetuning.checkpoint import EPOCHS
from flowers_batch.finetuning.job import FinetuningJob, TrainingPhotos
from flowers_batch.finetuning.pixels import PixelReader
from flowers_batch.finetuning.trainer import Trainer
from flowers_batch.finetuning.training_devices import TrainingDevices
from flowers_batch.progress import NULL_REPORTER
from flowers_batch.sources.images import images_of
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.source import Source

CLASSES = tuple("abcde")
WIDTH = 4096
SECONDS = 4.0  # of each measurement of steps, about
CPU_ROWS, GPU_ROWS = (("fc", 32),), (("fc", 32), ("fc", 128), ("conv5", 128), ("all", 32), ("all", 128))
FEEDING_ROUNDS = 7  # of a second or two


class Killed(BaseException):
    """Stands for the death of a training's process."""


def digests_of(source: Source, images: pa.Table) -> list[bytes]:
    """Return the SHA-256 of photos' files, which are then in the page cache."""
    return [hashlib.sha256(source.read(image)).digest() for image in images_of(images)]


def build_job(photos: Path, folder: Path, precision: str, **options: Any) -> FinetuningJob:
    """Return a fine-tuning on a folder's photos with random classes, of which a tenth validates."""
    encoding = EncodeConfig(weights="random:0", precision=precision)
    random = np.random.default_rng(0)
    source = open_source(photos)
    images = pa.Table.from_batches(source.batches())
    of_photos = TrainingPhotos(
        source=source,
        images=images,
        digests=digests_of(source, images),
        targets=random.integers(0, len(CLASSES), len(images)),
        is_training=np.arange(len(images)) % 10 != 0,
    )
    layer = np.zeros((WIDTH, len(CLASSES)), np.float32), np.zeros(len(CLASSES), np.float32)
    standardized = Normalization(STANDARDIZED, np.zeros(WIDTH, np.float32), np.full(WIDTH, 100, np.float32))
    head = Head(CLASSES, standardized, (layer,))
    return FinetuningJob(
        config=FinetuneConfig(encode=encoding, train=TrainConfig(("folder",), head="logistic"), **options),
        encoding=encoding,
        weights=weights_identity(encoding)[0],
        photos=of_photos,
        head=head,
        folder=str(folder),
        codes="",
    )


def step_rate(trainer: Trainer, size: int) -> float:
    """Photos/s of steps on the same pixels, once all is compiled."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, 224, 224, 3)).astype(np.uint8)
    arrays = pixels, np.arange(size) % len(CLASSES), np.ones(size, np.float32)
    devices = TrainingDevices(1)
    for _ in range(2):
        devices.step(trainer.model.classifier, *arrays)
    began, steps = time.perf_counter(), 0
    while steps < 3 or time.perf_counter() - began < SECONDS:
        devices.step(trainer.model.classifier, *arrays)
        steps += 1
    return steps * size / (time.perf_counter() - began)


def crop_seconds(*layers: keras.layers.Layer) -> float:
    """Seconds of a step on 32 photos that layers vary, and hardly anything else, once all is compiled."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3)).astype(np.float32)
    model = keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1)])
    model.compile(loss="mse", jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")
    arrays = pixels, np.zeros((32, 1), np.float32)
    model.train_on_batch(*arrays)  # only while a network is trained are photos varied
    with common.stopwatch() as seconds:
        for _ in range(5):
            model.train_on_batch(*arrays)
        return seconds() / 5


def read_rate(photos: Path, workers: int) -> float:
    """Photos/s from JPEG files to batches of pixels, as a training gets them, with nothing that takes them up."""
    source = open_source(photos)
    images = pa.Table.from_batches(source.batches())
    settings = PoolSettings(workers, EncodeConfig.max_pixels, EncodeConfig.image_timeout)
    reader = PixelReader(source, images, digests_of(source, images), 32, settings)
    last = np.arange(len(images))[-32 * workers :]
    sum(len(pixels) for pixels in reader.batches(last))  # until all workers have started
    with common.stopwatch() as seconds:
        done = sum(len(pixels) for pixels in reader.batches(np.arange(len(images) - len(last))))
        rate = done / seconds()
    reader.close()
    return rate


def decode_rate(photos: Path, threads: int) -> float:
    """Photos/s of as many threads that read, hash and decode, and do nothing else."""
    files = sorted(photos.iterdir())

    def work(first: int) -> None:
        pixels = np.empty((224, 224, 3), np.uint8)
        for path in files[first::threads]:
            data = path.read_bytes()
            hashlib.sha256(data).digest()
            decode(data, allocate=lambda: pixels)

    prepare_libraries()
    with ThreadPoolExecutor(threads) as pool, common.stopwatch() as seconds:
        list(pool.map(work, range(threads)))
        return len(files) / seconds()


def outcome(job: FinetuningJob, workers: int, kill_at: str = "") -> list[Any]:
    """What a training ends with: its figures, and the head; nothing where it is killed."""
    trainer = Trainer(job, workers, 1)

    def kill(sentence: str) -> None:
        if kill_at and sentence.startswith(kill_at):
            raise Killed

    reporter = SimpleNamespace(message=kill, update=lambda progress: kill(progress.text))
    try:
        state = trainer.train(reporter)
        kernel, bias = trainer.publish(state)
    except Killed:
        return []
    finally:
        trainer.close()
    return [*((epoch.loss, epoch.validation_loss) for epoch in state.epochs), kernel.tobytes(), bias.tobytes()]


def main() -> None:
    """Measures, prints a table and a JSON line."""
    arguments = common.parse_arguments(
        __doc__, workers={"type": int, "default": os.cpu_count(), "help": "processes that decode (default: the cores)"}
    )
    name, workers = device(), arguments.workers
    is_cpu = name.lower() == "cpu"
    precision = "float32" if is_cpu else "bfloat16"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        sources = common.find_photos(arguments.photos, Path(scratch))

        def files(count: int) -> Path:
            return common.write_archive(sources, Path(scratch, f"photos-{count}"), count)

        many = files(1200 if is_cpu else 16_000)
        rates = common.run_interleaved(
            FEEDING_ROUNDS, read=lambda: read_rate(many, workers), decode=lambda: decode_rate(many, workers)
        )
        for unfreeze, size in CPU_ROWS if is_cpu else GPU_ROWS:
            job = build_job(files(10), Path(scratch), precision, unfreeze=unfreeze, batch_size=size)
            trainer = Trainer(job, workers, 1)
            rows.append({"unfrozen": unfreeze, "batch": size, "photos/s of steps": round(step_rate(trainer, size), 1)})
            trainer.close()
            print(rows[-1], flush=True)
        fed = build_job(
            files(120 if is_cpu else 12_000), Path(scratch, "fed"), precision, epochs=2, batch_size=rows[-1]["batch"]
        )
        trainer = Trainer(fed, workers, 1)
        epoch = trainer.train(NULL_REPORTER).epochs[-1]  # the first one compiles
        trainer.close()
        seconds = epoch.stages["network"] + epoch.stages["wait"]
        share = epoch.stages["network"] / seconds
        rows.append(
            {
                "unfrozen": "fc, from JPEG bytes",
                "batch": rows[-1]["batch"],
                "photos/s of steps": round(len(fed.photos) / seconds, 1),
                "network's share of the time": round(share, 3),
            }
        )
        print(rows[-1], flush=True)
        # Each trained variable with Adam's two, of the last epoch and, if that is another, of the best.
        kept = sum(path.stat().st_size for path in Path(scratch, "fed", EPOCHS).iterdir())
        move, zoom = keras.layers.RandomTranslation(0.15, 0.15), keras.layers.RandomZoom((-0.4, 0.0))
        crops = crop_seconds(move, zoom) / crop_seconds(RandomResizedCrop(0))
        few = files(80 if is_cpu else 640)
        undisturbed = build_job(few, Path(scratch, "whole"), precision, epochs=2, unfreeze="fc" if is_cpu else "all")
        broken = replace(undisturbed, folder=str(Path(scratch, "broken")))
        expected = outcome(undisturbed, workers)
        outcome(broken, workers, "epoch 2 of 2: 64")
        is_equal = outcome(broken, workers) == expected
    claims = [
        common.ratio_claim("pixels for training, over decoding alone", rates["read"], rates["decode"], 0.95),
        common.Claim("a killed training ends as one that was not (1: in every bit)", float(is_equal), 1.0),
    ]
    figures = {"device": name, "backend": keras.backend.backend(), "workers": workers, "precision": precision}
    figures |= {"Keras' translation and zoom over our crop, seconds": round(crops, 1), "epochs of fc, GB": kept / 1e9}
    common.report("finetune", claims, figures | {"rows": rows, "read and decoded, photos/s": rates})


if __name__ == "__main__":
    main()
