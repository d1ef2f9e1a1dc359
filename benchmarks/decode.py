"""Decoding and resizing on one core, compared with the reference, for small photos and for a camera's photos.

Each peer is warm, in a process of its own: ours with an actor's settings, the reference as the course notebook runs it.
The benchmark also reports what libjpeg's scaled decoding would gain for large photos, and the relative errors of codes
that it would cost.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.resizing import SIDE
from flowers_batch.decoding.sandbox import prepare_libraries
from tensorflow_vgg.images import load_image

SMALL, LARGE = 100, 4  # photos per round
ROUNDS = 5
CAMERA = 4000, 3000  # pixels: width and height
SCALES = 2, 4


def rate(call: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """Return the number of calls per second."""
    start = time.perf_counter()
    for argument in arguments:
        call(argument)
    return len(arguments) / (time.perf_counter() - start)


def decode_scaled(data: bytes, scale: int) -> NDArray[np.float32]:
    """Return the resized centre square, decoded at a fraction of its size by libjpeg.

    libjpeg averages `scale` x `scale` pixels. The variance of this box is subtracted from that of the anti-aliasing
    Gaussian, so that both blurs together are the one of the reference.
    """
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    photo = simplejpeg.decode_jpeg(data, min_height=height // scale, min_width=width // scale)
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    sigma = (min(height, width) / SIDE - 1) / 2
    box = (scale**2 - 1) / 12  # variance of a box of `scale` pixels: (n^2 - 1) / 12
    smaller = np.sqrt(sigma**2 - box) / scale
    radius = int(4 * smaller + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / smaller) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    square = photo[top : top + side, left : left + side]
    smooth = cv2.sepFilter2D(square, cv2.CV_32F, weights, weights, borderType=cv2.BORDER_REFLECT_101)
    return cv2.resize(smooth, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def code_errors(exact: NDArray[np.float32], others: dict[str, NDArray[np.float32]]) -> dict[str, float]:
    """Return the largest relative L2 error of VGG16's float32 codes for each kind of inexact pixels."""
    from tensorflow_vgg import weights
    from tensorflow_vgg.network import build

    model = build("vgg16", "relu6", weights.load(weights.find("random:0"), "vgg16", "relu6"))
    codes = model.predict_on_batch(exact)
    return {
        name: float(
            (np.linalg.norm(model.predict_on_batch(pixels) - codes, axis=1) / np.linalg.norm(codes, axis=1)).max()
        )
        for name, pixels in others.items()
    }


def ours(paths: Sequence[Path]) -> float:
    """Measure photos per second, decoded as in a worker."""
    return rate(decode, [path.read_bytes() for path in paths])


def reference(paths: Sequence[Path]) -> float:
    """Measure photos per second, read as in the course notebook."""
    return rate(load_image, paths)


def scaled(scale: int) -> Callable[[Sequence[Path]], float]:
    """Return the measurement of photos per second by libjpeg's scaled decoding."""
    return lambda paths: rate(lambda data: decode_scaled(data, scale), [path.read_bytes() for path in paths])


PEERS = {"ours": ours, "reference": reference} | {f"1/{scale}": scaled(scale) for scale in SCALES}

PEER_OPTIONS = {
    "peer": {"choices": list(PEERS), "help": "be this peer; the benchmark starts its peers with this option"},
    "folder": {"type": Path, "help": "a peer's photos"},
    "count": {"type": int, "help": "the number of photos that a peer decodes per round"},
}


def main() -> None:
    """Compare all peers, or be one of them."""
    options = common.parse_arguments(__doc__, **PEER_OPTIONS)
    if not options.peer:
        compare(options.photos)
        return
    if options.peer == "reference":
        threadpool_limits(1)
    else:
        prepare_libraries()
    measure = partial(PEERS[options.peer], sorted(options.folder.iterdir())[: options.count])
    measure()  # warms up
    common.serve(measure)


def compare(folder_of_photos: Path | None) -> None:
    """Compare all peers, and report."""
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        small, large = Path(scratch, "small"), Path(scratch, "large")
        photos = common.write_archive(common.find_photos(folder_of_photos, Path(scratch)), small, SMALL)
        large.mkdir()
        for path in sorted(photos.iterdir())[:LARGE]:
            (large / path.name).write_bytes(common.enlarge(path, *CAMERA))

        def peer_process(peer: str, folder: Path, count: int) -> Callable[[], float]:
            return stack.enter_context(
                common.warm_process(__file__, "--peer", peer, "--folder", folder, "--count", count)
            )

        rates = common.run_interleaved(
            ROUNDS, small=peer_process("ours", small, SMALL), small_reference=peer_process("reference", small, SMALL)
        )
        rates |= common.run_interleaved(
            ROUNDS - 2,
            large=peer_process("ours", large, LARGE),
            large_reference=peer_process("reference", large, 1),
            **{f"large_{scale}": peer_process(f"1/{scale}", large, LARGE) for scale in SCALES},
        )
        contents = {path: path.read_bytes() for path in (*small.iterdir(), *large.iterdir())}
        exact = np.stack([decode(contents[path]).pixels for path in large.iterdir()])
        others = {
            f"1/{scale}": np.stack([decode_scaled(contents[p], scale) for p in large.iterdir()]) for scale in SCALES
        }
        compared = [*small.iterdir(), next(large.iterdir())]
        differences = [np.abs(decode(contents[path]).pixels - load_image(path) * 255).max() for path in compared]
        kilobytes = round(float(np.mean([path.stat().st_size for path in large.iterdir()])) / 1000)
    common.report(
        "decode",
        [
            common.ratio_claim(
                f"decoding, one core, over the reference: {name}", rates[peer], rates[f"{peer}_reference"], 9
            )
            for name, peer in (("small photos", "small"), (f"{CAMERA[0]}x{CAMERA[1]}", "large"))
        ],
        {
            "images/s, medians": {name: round(float(np.median(found)), 2) for name, found in rates.items()},
            "kB of a 4000x3000 photo": kilobytes,
            "largest difference from the reference, levels": float(max(differences)),
            "4000x3000, scaled decoding: largest difference, levels": {
                name: round(float(np.abs(pixels - exact).max()), 2) for name, pixels in others.items()
            },
            "4000x3000, scaled decoding: largest relative error of a code": code_errors(
                exact, others | {"rounded to uint8": np.rint(exact)}
            ),
        },
    )


if __name__ == "__main__":
    main()
