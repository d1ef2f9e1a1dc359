"""Images per second from shrunk photos over those from small JPEG files, on the same cores, with the null network.

Each peer is what an actor does, without Ray, on batches of a GPU's size: it reads, makes rows and writes them. The
folders of pixels are made by `shrink`, whose own rate is printed, too.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Claim,
    enlarge,
    find_photos,
    parse_arguments,
    ratio_claim,
    report,
    run_interleaved,
    serve,
    stopwatch,
    warm_process,
    write_archive,
)

from flowers_batch.config import EncodeConfig, ShrinkConfig
from flowers_batch.dataset.schema import PIXELS
from flowers_batch.encoding.micro_batcher import GPU_BATCH

ROUNDS = 5
FILES = 2048
SHARD_SIZE = 1024
CORES = os.cpu_count() or 1
LEAST_GAIN = 5.0
MOST_BYTES = 155_000  # of a shrunk photo: 150,528 of pixels


def actor(where: Path) -> Callable[[], float]:
    """Return what measures images per second of an actor that encodes photos, shrunk or not."""
    from lone_actor import LoneActor

    from flowers_batch.dataset.photo_sources import open_photos
    from flowers_batch.encoding.factories import EncoderFactory
    from flowers_batch.encoding.networks import NullNetwork

    class Factory(EncoderFactory):
        """Makes encoders whose network takes no time: the null network waits for the pixels that it reads."""

        def _network(self, *arguments: Any) -> Any:
            _, *rest = super()._network(*arguments)
            codes = np.random.default_rng(0).random((GPU_BATCH, NullNetwork.width), np.float32)
            return lambda pixels: codes[: len(pixels)], *rest

    config = EncodeConfig(network="null", batch_size=GPU_BATCH, uint8_pixels=True)
    lone = LoneActor(Factory(config, open_photos(where)), tempfile.mkdtemp(dir=where.parent), SHARD_SIZE, CORES)
    lone.encode(lone.shards)  # warms up

    def measure() -> float:
        with stopwatch() as seconds:
            return lone.encode(lone.shards) / seconds()

    return measure


def shrunk(photos: Path, out: Path, **settings: Any) -> tuple[float, float]:
    """Shrink photos; return images per second without start-up, and the bytes of each on disk."""
    import flowers_batch as fb

    summary = fb.shrink(photos, out, ShrinkConfig(shard_size=SHARD_SIZE // 4, **settings))
    return summary.images_per_second, sum(path.stat().st_size for path in (out / PIXELS).iterdir()) / summary.ok


def time_with_thumbnails(photos: Path) -> float:
    """Return how many times as long a camera's photo takes with a thumbnail as without: the least of some tries."""
    from flowers_batch.decoding.outputs import ShrunkPhoto, WebpThumbnail

    data = enlarge(next(photos.iterdir()), 4000, 3000)
    seconds = []
    for output in (ShrunkPhoto(thumbnail=WebpThumbnail(512)), ShrunkPhoto()):
        slot, tries = np.zeros(output.shape, output.dtype), []
        for _ in range(ROUNDS):
            with stopwatch() as passed:
                output.write(data, slot, EncodeConfig.max_pixels, None)
                tries.append(passed())
        seconds.append(min(tries))
    return seconds[0] / seconds[1]


def main() -> None:
    """Compare the peers, or be one."""
    options = parse_arguments(__doc__, folder={"type": Path, "help": "be a peer that encodes this folder"})
    if options.folder:
        serve(actor(options.folder))
        return
    with tempfile.TemporaryDirectory() as scratch:
        compare(write_archive(find_photos(options.photos, Path(scratch)), Path(scratch, "photos"), FILES))


def compare(photos: Path) -> None:
    """Compare photos and their pixels, and report."""
    pixels, pictures = photos.with_name("pixels"), photos.with_name("pictures")
    rate, size = shrunk(photos, pixels)
    rate_with_thumbnails, size_with_thumbnails = shrunk(photos, pictures, thumbnails=True)
    script = str(Path(__file__).resolve())
    with (
        warm_process(script, "--folder", photos) as of_photos,
        warm_process(script, "--folder", pixels) as of_pixels,
    ):
        rates = run_interleaved(ROUNDS, photos=of_photos, pixels=of_pixels)
    claims = [
        ratio_claim("images/s from shrunk photos over small JPEGs", rates["pixels"], rates["photos"], LEAST_GAIN),
        Claim("bytes of a shrunk photo", size, MOST_BYTES, at_least=False),
    ]
    jpeg = statistics.mean(path.stat().st_size for path in photos.iterdir())
    figures: dict[str, object] = {"cores": CORES, "bytes of a JPEG": f"{jpeg:.0f}"}
    figures |= {f"from {name}, images/s": f"{statistics.median(found):.0f}" for name, found in rates.items()}
    figures |= {
        "thumbnails of 12 megapixels, time over that of pixels alone": f"{time_with_thumbnails(photos):.2f}",
        "shrink, images/s": f"{rate:.0f}",
        "shrink with thumbnails, images/s": f"{rate_with_thumbnails:.0f}",
        "bytes of a thumbnail": f"{size_with_thumbnails - size:.0f}",
    }
    report("shrink", claims, figures)


if __name__ == "__main__":
    main()
