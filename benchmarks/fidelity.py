"""Relative errors of `encode`'s codes against the reference.

The reference is scikit-image's pixels, not rounded, and the same network in float32.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from common import Claim, find_photos, parse_arguments, report, write_archive
from numpy.typing import NDArray

import flowers_batch as fb
from tensorflow_vgg import weights
from tensorflow_vgg.images import load_image
from tensorflow_vgg.network import build

PHOTOS = 200
BATCH = 20
WEIGHTS = "random:0"


def reference(paths: list[Path]) -> NDArray[np.float32]:
    """Return the reference codes: float32 [N, 4096]."""
    model = build("vgg16", "relu6", weights.load(weights.find(WEIGHTS), "vgg16", "relu6"))
    codes = []
    for start in range(0, len(paths), BATCH):
        pixels = np.stack([load_image(path) * 255 for path in paths[start : start + BATCH]])
        codes.append(model.predict_on_batch(pixels.astype(np.float32)))
    return np.concatenate(codes)


def encoded(folder: Path, out: Path, precision: str) -> NDArray[np.float32]:
    """Return the codes of `encode`, sorted by path: float32 [N, 4096]."""
    fb.encode(folder, out, fb.EncodeConfig(weights=WEIGHTS, precision=precision, code_dtype="float32"))
    table = pq.read_table(out / "codes", columns=["path", "code"]).sort_by("path")
    return table["code"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)


def errors(codes: NDArray[np.float32], expected: NDArray[np.float32]) -> list[float]:
    """Return the relative L2 error of each photo's code."""
    return (np.linalg.norm(codes - expected, axis=1) / np.linalg.norm(expected, axis=1)).tolist()


def main() -> None:
    """Encode photos in both precisions, compare, and report."""
    options = parse_arguments(__doc__)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = find_photos(options.photos, folder)
        paths = sorted(write_archive(sources, folder / "photos", min(PHOTOS, len(sources))).iterdir())
        by_precision = {name: encoded(folder / "photos", folder / name, name) for name in ("float32", "bfloat16")}
        expected = reference(paths)
    exact, rough = (errors(codes, expected) for codes in by_precision.values())
    claims = [
        Claim("relative error of a code, float32, median", statistics.median(exact), 1e-4, False, spread(exact)),
        Claim("relative error of a code, float32, largest", max(exact), 1e-3, False),
    ]
    figures = {
        "relative error of a code, bfloat16, median": f"{statistics.median(rough):.2e}",
        "relative error of a code, bfloat16, largest": f"{max(rough):.2e}",
        "photos": len(paths),
    }
    report("fidelity", claims, figures)


def spread(values: list[float]) -> tuple[float, float]:
    """Return the lowest and the highest value."""
    return min(values), max(values)


if __name__ == "__main__":
    main()
