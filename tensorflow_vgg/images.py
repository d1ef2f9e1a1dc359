"""The reference preprocessing, with scikit-image: slow and exact.

Faster implementations are tested against it.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

SIDE = 224  # pixels: the networks' input is square (section 2.1 of arXiv 1409.1556)
# The mean pixel of ImageNet's training photos, 0 to 255, in the Caffe model's order of channels: blue, green, red.
# From the model card of VGG_ILSVRC_16_layers.
MEAN_BGR = (103.939, 116.779, 123.68)


def load_image(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Read a photo, crop it to its centre square and resize it.

    Args:
        path: An image file with three channels of 8 bits each.

    Returns:
        float64 [224, 224, 3], RGB in [0, 1].
    """
    import skimage.io

    return centre_square(skimage.io.imread(os.fspath(path)) / 255.0)


def centre_square(photo: NDArray[np.float64]) -> NDArray[np.float64]:
    """Crop a photo to its centre square and resize it, by `skimage.transform.resize` with its defaults.

    Args:
        photo: [height, width, 3], values in [0, 1].

    Returns:
        float64 [224, 224, 3], in the same range.
    """
    import skimage.transform

    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    return skimage.transform.resize(photo[top : top + side, left : left + side], (SIDE, SIDE))
