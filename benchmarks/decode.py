"""Decoding and resizing on one core, against the reference: `python benchmarks/decode.py FOLDER_OF_JPEGS`."""

import argparse
import json
import random
import statistics
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from flowers_batch.decode import decode
from tensorflow_vgg.images import load_image

PHOTOS = 60
ROUNDS = 5


def seconds(call, arguments) -> float:
    """Seconds that a call takes for all arguments."""
    began = time.perf_counter()
    for argument in arguments:
        call(argument)
    return time.perf_counter() - began


def main() -> None:
    """Times both in turn, prints a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    paths = sorted(parser.parse_args().folder.rglob("*.jpg"))
    paths = random.Random(0).sample(paths, min(PHOTOS, len(paths)))
    contents = [path.read_bytes() for path in paths]
    difference = max(
        np.abs(decode(data).pixels - load_image(path) * 255).max() for path, data in zip(paths, contents, strict=True)
    )
    ours, reference = [], []
    with threadpool_limits(1):
        for _ in range(ROUNDS):
            ours.append(len(paths) / seconds(decode, contents))
            reference.append(len(paths) / seconds(load_image, paths))
    ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, reference, strict=True))
    result = {
        "photos": len(paths),
        "decode_images_per_second": round(statistics.median(ours), 1),
        "reference_images_per_second": round(statistics.median(reference), 1),
        "ratio": round(ratio, 2),
        "largest_difference_in_levels": float(difference),
    }
    for name, value in result.items():
        print(f"{name:32} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
