"""How far perceptual hashes of edited copies lie from the photo's own, and those of different photos from each other.

By these figures the distance was chosen within which photos are taken for copies: `grouping.MAX_DISTANCE`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from common import Claim, find_photos, parse_arguments, report
from numpy.typing import NDArray

from flowers_batch.classifier.near_duplicates import MAX_DISTANCE
from flowers_batch.decoding.decode_photo import decode_photo
from flowers_batch.decoding.perceptual_hash import perceptual_hash

PHOTOS = 300
SHOWN = (4, 6, 8, 10, 12)  # of a balanced hash, half of whose bits are set, all distances are even

Photo = NDArray[np.uint8]


def scaled(factor: float) -> Callable[[Photo], Photo]:
    """Makes a photo larger or smaller."""
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return lambda photo: cv2.resize(photo, None, fx=factor, fy=factor, interpolation=method)


def compressed(quality: int) -> Callable[[Photo], Photo]:
    """Writes a photo as JPEG and reads it."""
    return lambda photo: cv2.imdecode(cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def brightened(factor: float) -> Callable[[Photo], Photo]:
    """Multiplies a photo's values."""
    return lambda photo: np.clip(photo * factor, 0, 255).astype(np.uint8)


def cropped(share: float) -> Callable[[Photo], Photo]:
    """Takes a share of both sides away, as much at each end."""

    def crop(photo: Photo) -> Photo:
        top, left = (round(side * share / 2) for side in photo.shape[:2])
        return np.ascontiguousarray(photo[top : photo.shape[0] - top, left : photo.shape[1] - left])

    return crop


EDITS = {
    "half the size": scaled(0.5),
    "twice the size": scaled(2),
    "JPEG of quality 75": compressed(75),
    "JPEG of quality 30": compressed(30),
    "brighter by 20%": brightened(1.2),
    "darker by 30%": brightened(0.7),
    "2% cut off": cropped(0.02),
    "3% cut off": cropped(0.03),
    "5% cut off": cropped(0.05),
    "10% cut off": cropped(0.1),
}
SLIGHT = [name for name in EDITS if name not in ("5% cut off", "10% cut off")]


def main() -> None:
    """Measure and print."""
    options = parse_arguments(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        found = find_photos(options.photos, Path(scratch))[:PHOTOS]
        decoded = [decode_photo(path.read_bytes()) for path in found]
    hashes = np.array([perceptual_hash(photo) for photo in decoded], np.uint64)
    distances = {
        name: np.array(
            [(int(own) ^ perceptual_hash(edit(photo))).bit_count() for own, photo in zip(hashes, decoded, strict=True)]
        )
        for name, edit in EDITS.items()
    }
    between = np.bitwise_count(hashes[:, None] ^ hashes[None])[np.triu_indices(len(hashes), 1)]
    rows: list[dict[str, object]] = [
        {"pairs": name, "median": f"{np.median(each):g}", "largest": int(each.max())}
        | {f"within {limit}": f"{(each <= limit).mean():.1%}" for limit in SHOWN}
        for name, each in distances.items()
    ]
    different = {"pairs": "different photos", "median": f"{np.median(between):g}", "smallest": int(between.min())}
    rows.append(different | {f"within {limit}": f"{(between <= limit).mean():.1e}" for limit in SHOWN})
    near = float(np.mean([(distances[name] <= MAX_DISTANCE).mean() for name in SLIGHT]))
    report(
        "copies",
        [
            Claim(f"slightly edited copies within a distance of {MAX_DISTANCE}", near, 0.99),
            Claim(
                f"different photos within it, of {len(between)} pairs", float((between <= MAX_DISTANCE).sum()), 0, False
            ),
        ],
        {"distances": rows},
    )


if __name__ == "__main__":
    main()
