"""The reference preprocessing, with scikit-image: slow and exact."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

SIDE = 224
# The mean pixel of ImageNet's training photos, in the order of the Caffe model's channels: blue, green, red
# (the model card of VGG_ILSVRC_16_layers).
MEAN_BGR = (103.939, 116.779, 123.68)


def load_image(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Reads a photo, crops its centre square and resizes it.

    Args:
        path: An image file with three channels of 8 bits.

    Returns:
        float64 [224, 224, 3], RGB in [0, 1].
    """
    import skimage.io

    return centre_square(skimage.io.imread(os.fspath(path)) / 255.0)


def centre_square(photo: NDArray[np.float64]) -> NDArray[np.float64]:
    """Crops a photo [height, width, 3] to its short edge and resizes it to [224, 224, 3]."""
    import skimage.transform

    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    return skimage.transform.resize(photo[top : top + side, left : left + side], (SIDE, SIDE))
