"""Decoding and resizing on one core against the reference, on small photos and on a camera's: `python decode.py`.

Also what libjpeg's scaled decoding would gain on large photos, and what it would cost: relative errors of the codes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from flowers_batch.decode import SIDE, decode
from tensorflow_vgg.images import load_image

SMALL, LARGE = 100, 4  # photos in a round
ROUNDS = 5
CAMERA = 4000, 3000
SCALES = 2, 4


def rate(call: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """Calls a second."""
    began = time.perf_counter()
    for argument in arguments:
        call(argument)
    return len(arguments) / (time.perf_counter() - began)


def decode_scaled(data: bytes, scale: int) -> NDArray[np.float32]:
    """The resized square by libjpeg's scaled decoding, with its own blur taken off the Gaussian's."""
    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    photo = simplejpeg.decode_jpeg(data, min_height=height // scale, min_width=width // scale)
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    sigma = (min(height, width) / SIDE - 1) / 2
    box = (scale**2 - 1) / 12  # variance of a box of so many pixels
    smaller = np.sqrt(sigma**2 - box) / scale
    radius = int(4 * smaller + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / smaller) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    square = photo[top : top + side, left : left + side]
    smooth = cv2.sepFilter2D(square, cv2.CV_32F, weights, weights, borderType=cv2.BORDER_REFLECT_101)
    return cv2.resize(smooth, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def code_errors(exact: NDArray[np.float32], others: dict[str, NDArray[np.float32]]) -> dict[str, float]:
    """The largest relative L2 error of VGG16's float32 codes that other pixels than the exact ones make."""
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


def main() -> None:
    """Times decoding and the reference in turn, and tells the ratios."""
    arguments = common.arguments(__doc__)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch, threadpool_limits(1):
        small = common.photos(arguments.photos, Path(scratch))[:SMALL]
        contents = {path: path.read_bytes() for path in small}
        for path in small:  # once, so that all is warm
            decode(contents[path])
        # Small ones first: large arrays would teach the allocator to keep memory, which helps the reference only.
        rates = common.in_turn(
            ROUNDS,
            small=lambda: rate(lambda path: decode(contents[path]), small),
            small_reference=lambda: rate(load_image, small),
        )
        large = [Path(scratch, f"large-{number}.jpg") for number in range(LARGE)]
        for path, source in zip(large, small, strict=False):
            path.write_bytes(common.enlarged(source, *CAMERA))
            contents[path] = path.read_bytes()
        rates |= common.in_turn(
            ROUNDS - 2,
            large=lambda: rate(lambda path: decode(contents[path]), large),
            large_reference=lambda: rate(load_image, large[:1]),
            **{
                f"large_{scale}": lambda scale=scale: rate(lambda p: decode_scaled(contents[p], scale), large)
                for scale in SCALES
            },
        )
        exact = np.stack([decode(contents[path]).pixels for path in large])
        scaled = {f"1/{scale}": np.stack([decode_scaled(contents[path], scale) for path in large]) for scale in SCALES}
        differences = [
            np.abs(decode(contents[path]).pixels - load_image(path) * 255).max() for path in (*small, *large[:1])
        ]
        kilobytes = round(float(np.mean([len(contents[path]) for path in large])) / 1000)
    common.tell(
        "decode",
        [
            common.ratio(
                "decoding, one core, over the reference: small photos", rates["small"], rates["small_reference"], 9
            ),
            common.ratio(
                "decoding, one core, over the reference: 4000x3000", rates["large"], rates["large_reference"], 9
            ),
        ],
        {
            "images/s, medians": {name: round(float(np.median(found)), 2) for name, found in rates.items()},
            "kB of a 4000x3000 photo": kilobytes,
            "largest difference from the reference, levels": float(max(differences)),
            "4000x3000, scaled decoding: largest difference, levels": {
                name: round(float(np.abs(pixels - exact).max()), 2) for name, pixels in scaled.items()
            },
            "4000x3000, scaled decoding: largest relative error of a code": code_errors(
                exact, scaled | {"rounded to uint8": np.rint(exact)}
            ),
        },
    )


if __name__ == "__main__":
    main()
