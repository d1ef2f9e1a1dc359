"""Images per second of everything but the network: `encode` with the null network, which takes no time.

It is compared with decoding alone and with a plain Ray Data pipeline. Each peer runs in a new process in each round.
One peer only starts and stops Ray, which is most of the time for this few files.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

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
    write_archive,
)

from flowers_batch.cluster.restricted_access import restricted_access

ROUNDS = 3
FILES = 3600
SHARD_SIZE = 600
BATCH = 32


def encode(folder: Path) -> float:
    """Measure our run with the null network: images per second from the moment at which an actor is ready."""
    import flowers_batch as fb

    with tempfile.TemporaryDirectory() as out:
        return fb.encode(folder, out, fb.EncodeConfig(network="null", shard_size=SHARD_SIZE)).images_per_second


def decode(folder: Path) -> float:
    """Measure files per second that all cores read and decode when they do nothing else: the limit of `encode`."""
    from flowers_batch.decoding.decode import decode
    from flowers_batch.decoding.sandbox import prepare_libraries

    paths = sorted(folder.iterdir())
    threads = os.cpu_count() or 1
    next_index = itertools.count()  # shared by the threads, instead of a queue or one future per file

    def work(_: int) -> int:
        done = 0
        while (index := next(next_index)) < len(paths):
            decode(paths[index].read_bytes())
            done += 1
        return done

    prepare_libraries()
    with ThreadPoolExecutor(threads) as pool, stopwatch() as seconds:
        assert sum(pool.map(work, range(threads))) == len(paths)
        return len(paths) / seconds()


def grid(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what the null network computes, for Ray Data: a 16x16 grid of each photo's pixels, as float16."""
    pixels = batch["image"][:, 7::14, 7::14]
    return {"path": batch["path"], "code": pixels.reshape(len(pixels), -1).astype(np.float16)}


def ray_data(folder: Path) -> float:
    """Measure a plain Ray Data pipeline from photos to Parquet: images per second once Ray runs."""
    import ray
    import ray.data

    with restricted_access():
        ray.init(address="local", log_to_driver=False)
        with tempfile.TemporaryDirectory() as out, stopwatch() as seconds:
            read = ray.data.read_images(str(folder), size=(224, 224), mode="RGB", include_paths=True)
            read.map_batches(grid, batch_size=BATCH).write_parquet(out)
            rate = FILES / seconds()
        ray.shutdown()
    return rate


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


PEERS: dict[str, Callable[[Path], float]] = {
    "encode": encode,
    "decode": decode,
    "ray_data": ray_data,
    "bare_ray": bare_ray,
}


def main() -> None:
    """Compare all peers, or be one of them."""
    options = parse_arguments(
        __doc__,
        peer={"choices": list(PEERS), "help": "be this peer; the benchmark starts its peers with this option"},
        folder={"type": Path, "help": "a peer's photos"},
    )
    if options.peer:
        serve(partial(PEERS[options.peer], options.folder))
    else:
        compare(options.photos)


def compare(folder_of_photos: Path | None) -> None:
    """Compare all peers, and report."""
    rates: dict[str, list[float]] = {name: [] for name in PEERS}  # measured by the peers, without start-up

    def rate_with_startup(name: str, folder: Path) -> float:
        """Measure files per second of a process, from its launch to its end."""
        with stopwatch() as seconds:
            rates[name].append(run_once(__file__, "--peer", name, "--folder", folder))
            return FILES / seconds()

    with tempfile.TemporaryDirectory() as scratch:
        folder = write_archive(find_photos(folder_of_photos, Path(scratch)), Path(scratch, "photos"), FILES)
        with_startup = run_interleaved(ROUNDS, **{name: partial(rate_with_startup, name, folder) for name in PEERS})
    claims = [
        ratio_claim("feeding without start-up over decoding alone", rates["encode"], rates["decode"], 0.8),
        ratio_claim("feeding over Ray Data, with start-up", with_startup["encode"], with_startup["ray_data"], 6.0),
    ]
    without_startup = ratio_claim("", rates["encode"], rates["ray_data"], 0)
    upper_bound = ratio_claim("", with_startup["bare_ray"], with_startup["ray_data"], 0)
    figures: dict[str, object] = {
        "feeding over Ray Data, without start-up": f"{without_startup.value:.2f}",
        "only starting and stopping Ray over Ray Data, with start-up": f"{upper_bound.value:.2f}",
    }
    for name in ("encode", "decode", "ray_data"):
        figures[f"{name}, images/s"] = f"{statistics.median(rates[name]):.0f}"
        figures[f"{name}, images/s, with start-up"] = f"{statistics.median(with_startup[name]):.0f}"
    report("feed", claims, figures)


if __name__ == "__main__":
    main()
