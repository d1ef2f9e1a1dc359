"""What fast decoding does to codes, labels and perceptual hashes, compared with exact decoding.

Codes are averaged `pool5` in float32 with real weights. Errors are relative (L2). The measure is the error of rounding
pixels to bytes, which is done wherever the network computes in bfloat16: fast decoding should add no more.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common
import cv2
import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding import decode as decode_module
from flowers_batch.decoding.decode import FAST_SIDE, Picture, decode
from flowers_batch.decoding.pixels import SIDE

KEPT = 2, 2.5, 3, 4, 5  # times the network's side that the shorter side keeps
QUALITY = 92  # of JPEG files that are made
ENLARGED, FACTOR, ENLARGED_QUALITY = 24, 8, 95  # photos, times their size, and of their JPEG files
BATCH, FOLDS, DRAWS = 16, 5, 10
LABELLED = 150  # photos
OPTIONS = {
    "camera": common.CAMERA_OPTION | {"help": f"a folder of a camera's photos (default: ${common.CAMERA_VARIABLE})"},
    "weights": {
        "default": os.environ.get(common.WEIGHTS_VARIABLE),
        "help": f"the convolutions' weights (default: ${common.WEIGHTS_VARIABLE})",
    },
}


class Coder:
    """Makes codes of pixels."""

    def __init__(self, file: str):
        from tensorflow_vgg import weights
        from tensorflow_vgg.network import build

        parameters = weights.load(weights.find(file), "vgg16", "pool5")
        self._model = build("vgg16", "pool5", parameters, "float32", "avg")

    def __call__(self, pixels: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return codes [N, 512]."""
        return self._model.predict(np.stack(pixels), batch_size=BATCH, verbose=0)


def errors(codes: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each code's relative L2 error."""
    return np.linalg.norm(codes - expected, axis=1) / np.linalg.norm(expected, axis=1)


def in_words(values: NDArray[np.float32]) -> str:
    """Return median and largest."""
    return f"{np.median(values):.1e} / {values.max():.1e}"


def pictures(files: Sequence[bytes], mode: str) -> list[Picture]:
    """Decode files."""
    return [decode(data, mode=mode) for data in files]


def pixels_of(decoded: Sequence[Picture]) -> list[NDArray[np.float32]]:
    """Return the pixels of photos."""
    return [picture.pixels for picture in decoded]


def shrunk(data: bytes, side: int) -> bytes:
    """Return a photo as a JPEG file whose shorter side has so many pixels."""
    photo = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    scale = side / min(photo.shape[:2])
    size = [max(side, round(length * scale)) for length in (photo.shape[1], photo.shape[0])]
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def added_errors(
    coder: Coder, exact: Sequence[Picture], fast: Sequence[Picture]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the errors that fast decoding adds to codes, and those that rounding exact pixels to bytes adds."""
    pixels = pixels_of(exact)
    expected = coder(pixels)
    rounded = [np.rint(each) for each in pixels]
    return errors(coder(pixels_of(fast)), expected), errors(coder(rounded), expected)


def error_claim(photos: str, added: NDArray[np.float32]) -> common.Claim:
    """Return the claim on the error that fast decoding adds to the codes of some photos."""
    median, spread = float(np.median(added)), (float(added.min()), float(added.max()))
    return common.Claim(f"{photos}: error that fast adds to codes, median", median, 1.0e-2, False, spread)


def enlarged(path: Path) -> bytes:
    """Return an enlarged photo as a JPEG file: smooth where a camera's photo has details and noise."""
    photo = cv2.resize(cv2.imread(str(path)), None, fx=FACTOR, fy=FACTOR, interpolation=cv2.INTER_LANCZOS4)
    return cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, ENLARGED_QUALITY])[1].tobytes()


def rule(coder: Coder, files: Sequence[bytes]) -> list[dict[str, object]]:
    """Return the errors of photos that are decoded to a half, by how much of their side that keeps."""
    rows = []
    for kept in KEPT:
        made = [shrunk(data, int(2 * kept * SIDE)) for data in files]
        with patch.object(decode_module, "FAST_SIDE", int(kept * SIDE)):
            fast = pictures(made, "fast")
        added, rounding = added_errors(coder, pictures(made, "exact"), fast)
        rows.append(
            {
                "shorter side keeps": f"{kept:g} x {SIDE}",
                "fast": in_words(added),
                "rounded to bytes": in_words(rounding),
            }
        )
    return rows


def labels(coder: Coder, paths: Sequence[Path]) -> tuple[common.Claim, str]:
    """Return the difference of the accuracies that classifiers on codes of both modes reach, and both in words.

    The photos are enlarged to where fast decoding begins. Folds are drawn several times, the same ones for both modes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.preprocessing import normalize

    files = [common.enlarge(path, 2 * FAST_SIDE * 4 // 3, 2 * FAST_SIDE) for path in paths]
    classes = np.array([path.parent.name for path in paths])
    codes = {mode: normalize(coder(pixels_of(pictures(files, mode)))) for mode in ("exact", "fast")}
    found: dict[str, list[NDArray[Any]]] = {mode: [] for mode in codes}
    for seed in range(DRAWS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        for mode, values in codes.items():
            found[mode].append(cross_val_predict(LogisticRegression(C=100, max_iter=2000), values, classes, cv=folds))
    accuracies = {mode: [float(np.mean(draw == classes)) for draw in draws] for mode, draws in found.items()}
    differences = [fast - exact for fast, exact in zip(accuracies["fast"], accuracies["exact"], strict=True)]
    changed = np.mean([np.mean(a != b) for a, b in zip(found["exact"], found["fast"], strict=True)])
    noise = float(np.sqrt(np.mean(accuracies["exact"]) * (1 - np.mean(accuracies["exact"])) / len(paths)))
    words = ", ".join(f"{mode} {np.mean(values):.1%}" for mode, values in accuracies.items())
    claim = common.mean_claim(
        "labels: accuracy of fast over exact, within a standard error", differences, -noise, at_least=True
    )
    return claim, f"{words} of {len(paths)} enlarged photos; {changed:.1%} of the labels differ; {noise:.1%} is noise"


def main() -> None:
    """Compare both modes, and report."""
    options = common.parse_arguments(__doc__, **OPTIONS)
    if not options.weights or not options.camera:
        needed = f"--weights or {common.WEIGHTS_VARIABLE}, and --camera or {common.CAMERA_VARIABLE}"
        common.report("decode_modes", [], {"not measured": f"it needs {needed}"})
        return
    coder = Coder(options.weights)
    files = [path.read_bytes() for path in sorted(options.camera.glob("*.jpg"))]
    exact, fast = pictures(files, "exact"), pictures(files, "fast")
    bits = [(a.phash ^ b.phash).bit_count() for a, b in zip(exact, fast, strict=True)]
    with tempfile.TemporaryDirectory() as scratch:
        found = common.find_photos(options.photos, Path(scratch))
        large = [enlarged(path) for path in found[:ENLARGED]]
        accuracy_claim, accuracy = labels(coder, found[:LABELLED])
    modes = {
        "photos of cameras": added_errors(coder, exact, fast),
        f"photos enlarged {FACTOR} times": added_errors(coder, pictures(large, "exact"), pictures(large, "fast")),
    }
    common.report(
        "decode_modes",
        [*(error_claim(photos, added) for photos, (added, _) in modes.items()), accuracy_claim],
        {
            "error of codes, median / largest": [
                {"": photos, "fast": in_words(added), "rounded to bytes": in_words(rounding)}
                for photos, (added, rounding) in modes.items()
            ],
            "photos of cameras, and enlarged ones": f"{len(files)}, and {len(large)}",
            "bits of 64 that differ in perceptual hashes": f"{np.mean(bits):.1f} in the mean, at most {max(bits)}",
            "labels": accuracy,
            "error of codes by what the shorter side keeps, decoded to a half, median / largest": rule(coder, files),
        },
    )


if __name__ == "__main__":
    main()
