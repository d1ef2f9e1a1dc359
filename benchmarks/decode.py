"""Decoding on one core: exactly, fast, as the reference does it, and as an earlier version did; and resizing alone.

Each peer is warm, in a process of its own: ours with an actor's settings, the reference as the course notebook runs it.
Rates are photos per second of CPU time, so that other load on the machine matters less. `--before` names a checkout of
an earlier version (`git worktree add`). `benchmarks/decode_modes.py` shows what fast decoding does to codes and labels.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

SMALL, LARGE = 100, 4  # photos per round
SMALL_ROUNDS, LARGE_ROUNDS = 15, 5  # those of small photos take a tenth of a second
# A JPEG's EXIF segment: the photo is to be turned clockwise (Exif 2.32).
EXIF = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 3, 1, 6, 0)
TURNED = b"\xff\xe1" + struct.pack(">H", len(EXIF) + 2) + EXIF


def rate(call: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """Return the number of calls per second of CPU time."""
    start = time.process_time()
    for argument in arguments:
        call(argument)
    return len(arguments) / (time.process_time() - start)


def ours(paths: Sequence[Path], with_exif: bytes = b"", **mode: str) -> float:
    """Measure photos per second, decoded as in a worker."""
    from flowers_batch.decoding.decode import decode

    pixels = np.empty((224, 224, 3), np.float32)
    call = partial(decode, allocate=lambda: pixels, **mode)
    files = [path.read_bytes() for path in paths]
    return rate(call, [data[:2] + with_exif + data[2:] for data in files])


def resizing(paths: Sequence[Path]) -> float:
    """Measure squares of decoded photos per second, resized."""
    from flowers_batch.decoding.resizing import resize

    photos = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    squares = [photo[: min(photo.shape[:2]), : min(photo.shape[:2])] for photo in photos]
    return rate(partial(resize, out=np.empty((224, 224, 3), np.float32)), squares)


def reference(paths: Sequence[Path]) -> float:
    """Measure photos per second, read as in the course notebook."""
    from tensorflow_vgg.images import load_image

    return rate(load_image, paths)


PEERS = {
    "exact": ours,
    "fast": partial(ours, mode="fast"),
    "turned": partial(ours, with_exif=TURNED),
    "resizing": resizing,
    "reference": reference,
    "before": ours,
    "resizing before": resizing,
}
SMALL_PEERS = ("exact", "reference", "before")  # that decode small photos, too
PEER_OPTIONS = {
    "camera": common.CAMERA_OPTION,
    "before": {"type": Path, "help": "a checkout of an earlier version to compare with"},
    "peer": {"choices": list(PEERS), "help": "be this peer; the benchmark starts its peers with this option"},
    "folder": {"type": Path, "help": "a peer's photos"},
    "count": {"type": int, "help": "the number of photos that a peer decodes per round"},
}


def main() -> None:
    """Compare all peers, or be one of them."""
    options = common.parse_arguments(__doc__, **PEER_OPTIONS)
    if not options.peer:
        compare(options.photos, options.camera, options.before)
        return
    if options.peer.endswith("before"):
        sys.path.insert(0, str(options.before))
    if options.peer == "reference":
        threadpool_limits(1)
    else:
        from flowers_batch.decoding.sandbox import prepare_libraries

        prepare_libraries()
    measure = partial(PEERS[options.peer], sorted(options.folder.iterdir())[: options.count])
    measure()  # warms up
    common.serve(measure)


def compare(folder_of_photos: Path | None, camera: Path | None, before: Path | None) -> None:
    """Compare all peers, and report."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        found = common.find_photos(folder_of_photos, Path(scratch))
        small = common.write_archive(found, Path(scratch, "small"), SMALL)
        large = camera or enlarged(found[:LARGE], Path(scratch, "large"))
        count = len(list(large.iterdir()))

        def peer_process(peer: str, folder: Path, count: int) -> Callable[[], float]:
            options = ("--before", before) if peer.endswith("before") else ()
            options += ("--peer", peer, "--folder", folder, "--count", count)
            return stack.enter_context(common.warm_process(__file__, *options))

        peers = [peer for peer in PEERS if before or not peer.endswith("before")]
        rates = common.run_interleaved(
            SMALL_ROUNDS,
            **{f"small, {peer}": peer_process(peer, small, SMALL) for peer in peers if peer in SMALL_PEERS},
        )
        rates |= common.run_interleaved(
            LARGE_ROUNDS,
            **{f"large, {peer}": peer_process(peer, large, count) for peer in peers},
        )
        difference = largest_difference([*small.iterdir(), *sorted(large.iterdir())[:2]])
        megapixels = pixels_of(large)
    common.report(
        "decode",
        claims(rates, bool(before)),
        {
            "photos/s per core, medians": {name: round(float(np.median(found)), 2) for name, found in rates.items()},
            "large photos": f"{count} {'of cameras' if camera else 'enlarged'}, {megapixels:.1f} megapixels each",
            "largest difference of exact from the reference, levels": difference,
        },
    )


def claims(rates: dict[str, list[float]], has_before: bool) -> list[common.Claim]:
    """Return the claims on the peers' rates."""
    targets = {
        ("small", "exact", "reference"): 9,
        ("large", "exact", "reference"): 9,
        ("large", "fast", "reference"): 45,
        ("large", "turned", "exact"): 0.9,
        ("small", "exact", "before"): 1,
        ("large", "exact", "before"): 1.35,
        ("large", "fast", "before"): 2.0,
        ("large", "resizing", "resizing before"): 3,
    }
    return [
        common.ratio_claim(
            f"{size} photos, one core: {peer} over {other}", rates[f"{size}, {peer}"], rates[f"{size}, {other}"], target
        )
        for (size, peer, other), target in targets.items()
        if has_before or not other.endswith("before")
    ]


def enlarged(paths: Sequence[Path], folder: Path) -> Path:
    """Write enlarged photos into a folder, and return it."""
    folder.mkdir()
    for path in paths:
        (folder / path.name).write_bytes(common.enlarge(path, *common.CAMERA_SIZE))
    return folder


def largest_difference(paths: Sequence[Path]) -> float:
    """Return by how many levels of 255 exact pixels differ from the reference's."""
    from flowers_batch.decoding.decode import decode
    from tensorflow_vgg.images import load_image

    return float(max(np.abs(decode(path.read_bytes()).pixels - load_image(path) * 255).max() for path in paths))


def pixels_of(folder: Path) -> float:
    """Return the megapixels of a folder's photos, in the mean."""
    return float(np.mean([np.prod(Image.open(path).size) for path in folder.iterdir()])) / 1e6


if __name__ == "__main__":
    main()
