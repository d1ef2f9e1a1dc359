"""ImageNet's 1000 classes: their names, and the likeliest of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.download import Published, fetch

CLASS_INDEX = Published(
    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json",
    35363,
    "md5:c2c37ea517e94d9795004a39431a14cb",
)


def class_names(path: Path | None = None) -> list[str]:
    """The names of the classes, in the order of the layer `prob`.

    Two names stand for two classes each (`crane`, the bird and the machine); to these the WordNet number is added.

    Args:
        path: Keras' published class index; None fetches it.

    Raises:
        DownloadError: It cannot be fetched.
    """
    index = json.loads((path or fetch(CLASS_INDEX)).read_text(encoding="utf-8"))
    entries = [index[str(number)] for number in range(len(index))]
    counts = Counter(name for _, name in entries)
    return [name if counts[name] == 1 else f"{name} ({wordnet})" for wordnet, name in entries]


def top(probabilities: NDArray[np.floating], names: Sequence[str], k: int = 5) -> list[tuple[str, float]]:
    """The k likeliest classes of one photo, the likeliest first.

    Args:
        probabilities: [classes], as the layer `prob` gives them.
        names: The classes' names.
        k: How many.
    """
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [(names[index], float(probabilities[index])) for index in order]


def print_top(probabilities: NDArray[np.floating], names: Sequence[str], k: int = 5) -> None:
    """Prints the k likeliest classes of one photo, a line each."""
    for name, probability in top(probabilities, names, k):
        print(f"{probability:7.2%}  {name}")
