"""The course notebook's helper functions, under the names that it uses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.imagenet import class_names, top_classes
from tensorflow_vgg.images import load_image

__all__ = ["load_image", "print_prob"]


def print_prob(prob: NDArray[np.floating], file_path: str | os.PathLike[str] | None = None) -> str:
    """Print the most probable class of one photo, and the five most probable ones.

    Args:
        prob: [1000], the values of the layer `prob` for one photo.
        file_path: A text file with the name of one class per line; None stands for ImageNet's names.

    Returns:
        The name of the most probable class.

    Raises:
        DownloadError: `file_path` is None, and ImageNet's names cannot be downloaded.
    """
    names = Path(file_path).read_text(encoding="utf-8").splitlines() if file_path else class_names()
    best = top_classes(prob, names, 5)
    print("Top1:", *best[0])
    print("Top5:", best)
    return best[0][0]
