"""The names of ImageNet's 1000 classes, and the most probable ones of a photo."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.download import PublishedFile, fetch

# The class index that `keras.applications.imagenet_utils` uses.
CLASS_INDEX = PublishedFile(
    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json",
    35363,
    "md5:c2c37ea517e94d9795004a39431a14cb",
)


def class_names(path: Path | None = None) -> list[str]:
    """Return the names of the classes, in the order of the layer `prob`.

    Two names belong to two classes each (`crane`, the bird and the machine); the WordNet ID is appended to these.

    Args:
        path: Keras' published class index; None downloads it.

    Raises:
        DownloadError: The index cannot be downloaded.
    """
    index = json.loads((path or fetch(CLASS_INDEX)).read_text(encoding="utf-8"))
    entries = [index[str(number)] for number in range(len(index))]
    counts = Counter(name for _, name in entries)
    return [name if counts[name] == 1 else f"{name} ({wordnet})" for wordnet, name in entries]


def top_classes(probabilities: NDArray[np.floating], names: Sequence[str], k: int = 5) -> list[tuple[str, float]]:
    """Return the k most probable classes of one photo, the most probable first.

    Args:
        probabilities: [classes], the values of the layer `prob`, each 0 to 1.
        names: The classes' names.
        k: The number of classes.

    Returns:
        Name and probability of each; classes of equal probability in the order of `names`.
    """
    order = np.argsort(-probabilities, kind="stable")[:k]
    return [(names[index], float(probabilities[index])) for index in order]


def print_top_classes(probabilities: NDArray[np.floating], names: Sequence[str], k: int = 5) -> None:
    """Print the k most probable classes of one photo, one per line: see `top_classes`."""
    for name, probability in top_classes(probabilities, names, k):
        print(f"{probability:7.2%}  {name}")
