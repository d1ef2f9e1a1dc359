"""Images per second of everything but the network: `encode` with the null network, which takes no time.

It is compared with decoding alone and with a plain Ray Data pipeline. Each peer runs in a new process in each round.
Rates are compared without start-up, which takes about half of the time for so few files: ours from the end of the first
shard, Ray Data's from its second batch. They are printed with start-up, too, beside a peer that only starts and stops
Ray. Another peer does without Ray what an actor does, to measure the CPU time of its process, and how long its decode
workers take to start.

`--workers 1,4,16` instead compares actors with so many decode workers, on batches of a GPU's size.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from common import (
    Claim,
    find_photos,
    parse_arguments,
    ratio_claim,
    report,
    run_interleaved,
    run_once,
    serve,
    stopwatch,
    write_archive,
)

from flowers_batch.cluster.restricted_access import restricted_access
from flowers_batch.config import EncodeConfig
from flowers_batch.dataset.schema import CODES
from flowers_batch.encoding.micro_batcher import GPU_BATCH

ROUNDS = 3
FILES = 10_800
SHARD_SIZE = 1800  # when the first one ends, all of Ray has started
BATCH = 32
CORES = os.cpu_count() or 1
PER_BATCH = f"batches of {GPU_BATCH}"
MANY, LEAST_GAIN = 16, 12.0  # decode workers whose gain over one is claimed, where there are as many cores


def encode(folder: Path) -> float:
    """Measure our run with the null network: images per second from the end of its first shard to that of its last."""
    import flowers_batch as fb

    with tempfile.TemporaryDirectory() as out:
        fb.encode(folder, out, fb.EncodeConfig(network="null", shard_size=SHARD_SIZE))
        ends = sorted(shard.stat().st_mtime for shard in Path(out, CODES).iterdir())
        return SHARD_SIZE * (len(ends) - 1) / (ends[-1] - ends[0])


def decode(folder: Path) -> float:
    """Measure files per second that threads on all cores read, hash and decode when they do nothing else."""
    from flowers_batch.decoding.decode import decode
    from flowers_batch.decoding.sandbox import prepare_libraries

    paths = sorted(folder.iterdir())
    threads = CORES
    next_index = itertools.count()  # shared by the threads, instead of a queue or one future per file

    def work(_: int) -> int:
        done = 0
        while (index := next(next_index)) < len(paths):
            data = paths[index].read_bytes()
            hashlib.sha256(data).digest()
            decode(data)
            done += 1
        return done

    prepare_libraries()
    with ThreadPoolExecutor(threads) as pool, stopwatch() as seconds:
        assert sum(pool.map(work, range(threads))) == len(paths)
        return len(paths) / seconds()


def grid(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what the null network computes, a 16x16 grid of each photo's pixels as float16, and when, for Ray Data."""
    pixels = batch["image"][:, 7::14, 7::14]
    began = np.full(len(pixels), time.time())
    return {"path": batch["path"], "code": pixels.reshape(len(pixels), -1).astype(np.float16), "began": began}


def ray_data(folder: Path) -> float:
    """Measure a plain Ray Data pipeline from photos to Parquet: images per second from its second batch on."""
    import pyarrow.parquet as pq
    import ray
    import ray.data

    with restricted_access():
        ray.init(address="local", log_to_driver=False)
        with tempfile.TemporaryDirectory() as out:
            read = ray.data.read_images(str(folder), size=(224, 224), mode="RGB", include_paths=True)
            read.map_batches(grid, batch_size=BATCH).write_parquet(out)
            end = time.time()
            began = np.sort(pq.read_table(out, columns=["began"])["began"].to_numpy())
        ray.shutdown()
    return (FILES - BATCH) / (end - began[BATCH])


def bare_ray(folder: Path) -> float:
    """Measure how often per second Ray starts, runs one empty actor and stops: the upper bound of any run."""
    import ray

    with restricted_access(), stopwatch() as seconds:
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
        ray.get(ray.remote(Empty).remote().answer.remote())
        ray.shutdown()
        return 1 / seconds()


class Empty:
    """An actor that does nothing."""

    def answer(self) -> None:
        """Return as soon as the actor runs."""


def actor(folder: Path, workers: int, batch_size: int) -> list[float]:
    """Measure what an actor does, without Ray.

    Returns:
        Images per second, the microseconds of its own process's CPU time per image, and the seconds in which as many
        decode workers as there are cores start and decode their first images.
    """
    from lone_actor import LoneActor

    from flowers_batch.encoding.factories import EncoderFactory
    from flowers_batch.encoding.networks import NullNetwork
    from flowers_batch.sources.opening import open_source

    class Factory(EncoderFactory):
        """Makes encoders whose network takes no time: the null network waits for the pixels that it reads."""

        def _network(self, *arguments: Any) -> Any:
            _, *rest = super()._network(*arguments)
            codes = np.random.default_rng(0).random((batch_size, NullNetwork.width), np.float32)
            return lambda pixels: codes[: len(pixels)], *rest

    source = open_source(folder)
    config = EncodeConfig(network="null", batch_size=batch_size)
    with tempfile.TemporaryDirectory() as out:
        lone = LoneActor(Factory(config, source), out, SHARD_SIZE, workers)
        lone.encode(lone.shards[:1])  # warms up
        began = time.process_time()
        with stopwatch() as seconds:
            images = lone.encode(lone.shards)
            rate = images / seconds()
        cpu = (time.process_time() - began) / images
    return [rate, cpu * 1e6, start_seconds(folder)]


def start_seconds(folder: Path) -> float:
    """Return the seconds in which decode workers on all cores start and decode their first images."""
    from flowers_batch.decoding.groups import requests_of
    from flowers_batch.decoding.outputs import SquarePixels
    from flowers_batch.decoding.pool import DecodePool, PoolSettings
    from flowers_batch.sources.opening import open_source

    source = open_source(folder)
    rows = requests_of(pa.Table.from_batches(source.batches()).slice(0, CORES))
    settings = PoolSettings(CORES, EncodeConfig.max_pixels, EncodeConfig.image_timeout)
    with stopwatch() as seconds, DecodePool(source, SquarePixels("float32"), settings, CORES) as pool:
        for future in [pool.submit(rows.slice(slot, 1), slot) for slot in range(CORES)]:
            future.result()
        return seconds()


PEERS: dict[str, Callable[[Path], float]] = {
    "encode": encode,
    "decode": decode,
    "ray_data": ray_data,
    "bare_ray": bare_ray,
}


def main() -> None:
    """Compare all peers, or actors with different numbers of decode workers; or be a peer."""
    options = parse_arguments(
        __doc__,
        workers={"type": lambda text: [int(number) for number in text.split(",")], "help": "compare these numbers"},
        peer={"choices": [*PEERS, "actor"], "help": "be this peer; the benchmark starts its peers with this option"},
        folder={"type": Path, "help": "a peer's photos"},
        batch_size={"type": int, "default": BATCH, "help": "a peer's images per batch"},
    )
    if options.peer == "actor":
        serve(partial(actor, options.folder, options.workers[0], options.batch_size))
    elif options.peer:
        serve(partial(PEERS[options.peer], options.folder))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            folder = write_archive(find_photos(options.photos, Path(scratch)), Path(scratch, "photos"), FILES)
            compare_workers(folder, options.workers) if options.workers else compare(folder)


class Actors:
    """Starts actors, and keeps what they measured."""

    def __init__(self) -> None:
        self.cpu: list[float] = []  # microseconds per image
        self.start: list[float] = []  # seconds

    def rate(self, folder: Path, workers: int, batch_size: int) -> float:
        """Return an actor's images per second."""
        options = ("--peer", "actor", "--folder", folder, "--workers", workers, "--batch-size", batch_size)
        rate, cpu, start = run_once(str(Path(__file__).resolve()), *options)
        self.cpu.append(cpu)
        self.start.append(start)
        return rate


def compare_workers(folder: Path, numbers: list[int]) -> None:
    """Compare actors with different numbers of decode workers, and report."""
    actors = {number: Actors() for number in numbers}
    rates = run_interleaved(
        ROUNDS, **{f"{number} workers": partial(actors[number].rate, folder, number, GPU_BATCH) for number in numbers}
    )
    figures: dict[str, object] = {"cores": CORES}
    claims = []
    for number in numbers:
        figures[f"{number} workers, images/s"] = f"{statistics.median(rates[f'{number} workers']):.0f}"
        figures[f"{number} workers, parent's microseconds/image"] = f"{statistics.median(actors[number].cpu):.1f}"
        if number > 1 and 1 in numbers:
            gain = ratio_claim(
                f"feeding by {number} workers over 1", rates[f"{number} workers"], rates["1 workers"], LEAST_GAIN
            )
            if number == MANY <= CORES:
                claims.append(gain)
            else:
                figures[gain.claim] = f"{gain.value:.2f}"
    report("feed", claims, figures)


def compare(folder: Path) -> None:
    """Compare all peers, and report."""
    rates: dict[str, list[float]] = {name: [] for name in PEERS}  # measured by the peers, without start-up
    actors, gpu_actors = Actors(), Actors()

    def rate_with_startup(name: str) -> float:
        """Measure files per second of a process, from its launch to its end."""
        with stopwatch() as seconds:
            rates[name].append(run_once(__file__, "--peer", name, "--folder", folder))
            return FILES / seconds()

    with_startup = run_interleaved(
        ROUNDS,
        **{name: partial(rate_with_startup, name) for name in PEERS},
        actor=partial(actors.rate, folder, CORES, BATCH),
        gpu_actor=partial(gpu_actors.rate, folder, CORES, GPU_BATCH),
    )
    claims = [
        ratio_claim("feeding without start-up over decoding alone", rates["encode"], rates["decode"], 1.0),
        ratio_claim("feeding without start-up over Ray Data", rates["encode"], rates["ray_data"], 4.0),
        claim_median(f"parent's microseconds per photo, rows and writing included, {PER_BATCH}", gpu_actors.cpu, 45.0),
        claim_median(f"seconds in which {CORES} decode workers start", actors.start, 1.5),
    ]
    with_ray = ratio_claim("", with_startup["encode"], with_startup["ray_data"], 0)
    upper_bound = ratio_claim("", with_startup["bare_ray"], with_startup["ray_data"], 0)
    alone = ratio_claim("", with_startup["actor"], rates["decode"], 0)
    figures: dict[str, object] = {
        f"parent's microseconds per photo, batches of {BATCH}": f"{statistics.median(actors.cpu):.1f}",
        "an actor without Ray over decoding alone": f"{alone.value:.2f}",
        "feeding over Ray Data, with start-up": f"{with_ray.value:.2f}",
        "only starting and stopping Ray over Ray Data, with start-up": f"{upper_bound.value:.2f}",
        "an actor without Ray, images/s": f"{statistics.median(with_startup['actor']):.0f}",
    }
    for name in ("encode", "decode", "ray_data"):
        figures[f"{name}, images/s"] = f"{statistics.median(rates[name]):.0f}"
        figures[f"{name}, images/s, with start-up"] = f"{statistics.median(with_startup[name]):.0f}"
    report("feed", claims, figures)


def claim_median(claim: str, values: list[float], target: float) -> Claim:
    """Return a claim that the median is at most the target."""
    return Claim(claim, statistics.median(values), target, at_least=False, spread=(min(values), max(values)))


if __name__ == "__main__":
    main()
