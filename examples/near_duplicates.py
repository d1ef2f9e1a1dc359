"""Search for near-duplicates among codes: pairs of photos whose codes have a high cosine similarity.

Codes are centred first, because codes of any two photos share a large common part. Pairs are found by comparing blocks
of codes with each other, so memory is bounded by the codes and one block of similarities:

    python examples/near_duplicates.py run/codes --threshold 0.98
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from flowers_batch.text import visible

BLOCK = 1024  # codes that are compared at once: 4 MB of similarities per pair of blocks


def read_codes(folder: Path) -> tuple[list[str], NDArray[np.float32]]:
    """Read the codes of all photos that could be encoded.

    Args:
        folder: The folder of a finished `encode` run.

    Returns:
        The photos' paths, and their codes, float32 [photos, width].
    """
    table = ds.dataset(folder / "codes", format="parquet").to_table(["path", "code"], filter=pc.field("status") == "ok")
    codes = table["code"].combine_chunks()
    values = codes.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return table["path"].to_pylist(), values.reshape(len(codes), -1)


def similar_pairs(codes: NDArray[np.float32], threshold: float) -> Iterator[tuple[float, int, int]]:
    """Yield the cosine similarity and the two rows of each pair at or above a threshold.

    Args:
        codes: float32 [photos, width].
        threshold: From -1 to 1.
    """
    centred = codes - codes.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    for first in range(0, len(centred), BLOCK):
        for second in range(first, len(centred), BLOCK):
            cosines = centred[first : first + BLOCK] @ centred[second : second + BLOCK].T
            for row, column in zip(*np.nonzero(cosines >= threshold), strict=True):
                if first + row < second + column:
                    yield float(cosines[row, column]), int(first + row), int(second + column)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the most similar pairs, most similar first."""
    parser = argparse.ArgumentParser(description="Search for near-duplicates among codes.")
    parser.add_argument("codes", type=Path, help="folder of a finished `flowers-batch encode`")
    parser.add_argument("--threshold", type=float, default=0.95, help="lowest cosine similarity to report")
    parser.add_argument("--count", type=int, default=100, help="how many pairs to print at most")
    given = parser.parse_args(arguments)

    paths, codes = read_codes(given.codes)
    pairs = sorted(similar_pairs(codes, given.threshold), reverse=True)
    for cosine, first, second in pairs[: given.count]:
        print(visible(f"{cosine:.3f}  {paths[first]}  {paths[second]}"))
    print(f"{len(pairs)} pairs of {len(paths)} photos have a similarity of {given.threshold} or more")


if __name__ == "__main__":
    main()
