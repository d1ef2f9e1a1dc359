"""What feeds the network: `encode` with one that takes no time, against decoding alone and against Ray Data.

Each peer runs in a process of its own, which is new in each round. One of them only starts Ray and ends it, which is
the larger part of the time for so few files.
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

ROUNDS = 3
FILES = 3600
SHARD = 600
BATCH = 32


def encode(folder: Path) -> float:
    """Our run with the null network: images a second from the first actor that is ready."""
    import flowers_batch as fb

    with tempfile.TemporaryDirectory() as out:
        return fb.encode(folder, out, fb.EncodeConfig(network="null", shard_size=SHARD)).images_per_second


def decode(folder: Path) -> float:
    """Files a second that the cores read and decode when they do nothing else: the limit of `encode`."""
    from flowers_batch.decoding.decode import decode
    from flowers_batch.decoding.process_limits import prepare_process

    paths = sorted(folder.iterdir())
    threads = os.cpu_count() or 1
    taken = itertools.count()  # shared: each thread takes the next index, without a queue or a future a file

    def work(_: int) -> int:
        done = 0
        while (index := next(taken)) < len(paths):
            decode(paths[index].read_bytes())
            done += 1
        return done

    prepare_process()
    with ThreadPoolExecutor(threads) as pool, stopwatch() as seconds:
        assert sum(pool.map(work, range(threads))) == len(paths)
        return len(paths) / seconds()


def grid(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the null network makes of photos, for Ray Data: a 16x16 grid of their pixels, as float16."""
    pixels = batch["image"][:, 7::14, 7::14]
    return {"path": batch["path"], "code": pixels.reshape(len(pixels), -1).astype(np.float16)}


def ray_data(folder: Path) -> float:
    """A plain Ray Data pipeline from photos to Parquet: images a second once Ray runs."""
    import ray
    import ray.data

    ray.init(address="local", log_to_driver=False)
    with tempfile.TemporaryDirectory() as out, stopwatch() as seconds:
        read = ray.data.read_images(str(folder), size=(224, 224), mode="RGB", include_paths=True)
        read.map_batches(grid, batch_size=BATCH).write_parquet(out)
        rate = FILES / seconds()
    ray.shutdown()
    return rate


def bare_ray(folder: Path) -> float:
    """A Ray that starts, runs one empty actor and ends: what no run can be faster than. Runs a second."""
    import ray

    with stopwatch() as seconds:
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
        ray.get(ray.remote(Empty).remote().answer.remote())
        ray.shutdown()
        return 1 / seconds()


class Empty:
    """An actor that does nothing."""

    def answer(self) -> None:
        """Returns as soon as the actor runs."""


PEERS: dict[str, Callable[[Path], float]] = {
    "encode": encode,
    "decode": decode,
    "ray_data": ray_data,
    "bare_ray": bare_ray,
}


def main() -> None:
    """Measures all peers in turn, or is one of them."""
    options = parse_arguments(__doc__, peer={}, folder={"type": Path})
    if options.peer:
        serve(partial(PEERS[options.peer], options.folder))
    else:
        compare(options.photos)


def compare(folder_of_photos: Path | None) -> None:
    """Measures all peers in turn, and tells."""
    rates: dict[str, list[float]] = {name: [] for name in PEERS}  # as the peers tell them, start-up aside

    def whole(name: str, folder: Path) -> float:
        """Files a second of a process, from its launch to its end."""
        with stopwatch() as seconds:
            rates[name].append(run_once(__file__, "--peer", name, "--folder", folder))
            return FILES / seconds()

    with tempfile.TemporaryDirectory() as scratch:
        folder = write_archive(find_photos(folder_of_photos, Path(scratch)), Path(scratch, "photos"), FILES)
        wholes = run_interleaved(ROUNDS, **{name: partial(whole, name, folder) for name in PEERS})
    claims = [
        ratio_claim("feeding, start-up aside, over decoding alone", rates["encode"], rates["decode"], 0.8),
        ratio_claim("feeding over Ray Data, start-up included", wholes["encode"], wholes["ray_data"], 6.0),
    ]
    aside = ratio_claim("", rates["encode"], rates["ray_data"], 0)
    bound = ratio_claim("", wholes["bare_ray"], wholes["ray_data"], 0)
    figures: dict[str, object] = {
        "feeding over Ray Data, the start of Ray aside": f"{aside.value:.2f}",
        "starting and ending Ray, and nothing else, over Ray Data, start-up included": f"{bound.value:.2f}",
    }
    for name in ("encode", "decode", "ray_data"):
        figures[f"{name}, images/s"] = f"{statistics.median(rates[name]):.0f}"
        figures[f"{name}, images/s, start-up included"] = f"{statistics.median(wholes[name]):.0f}"
    report("feed", claims, figures)


if __name__ == "__main__":
    main()
