"""The helpers of the course notebook, under the names that it knows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tensorflow_vgg.imagenet import class_names, top
from tensorflow_vgg.images import load_image

__all__ = ["load_image", "print_prob"]


def print_prob(prob: NDArray[np.floating], file_path: str | os.PathLike[str] | None = None) -> str:
    """Prints the likeliest class of one photo, and the five likeliest.

    Args:
        prob: [1000], as the layer `prob` gives them for one photo.
        file_path: A text file with a class's name on each line; None takes ImageNet's names.

    Returns:
        The name of the likeliest class.

    Raises:
        DownloadError: No file is given, and ImageNet's names are not to be had.
    """
    names = Path(file_path).read_text(encoding="utf-8").splitlines() if file_path else class_names()
    likeliest = top(prob, names, 5)
    print("Top1:", *likeliest[0])
    print("Top5:", likeliest)
    return likeliest[0][0]
