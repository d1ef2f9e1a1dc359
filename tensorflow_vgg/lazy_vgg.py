"""The base class of `vgg16.Vgg16` and `vgg19.Vgg19`: a network whose layers are attributes, computed lazily."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tensorflow_vgg import weights
from tensorflow_vgg.images import SIDE
from tensorflow_vgg.network import build, compile_for_prediction, deepest_layer, layer_names


class LazyVgg:
    """A VGG network with the course notebook's interface.

    `build` takes the images. Then each layer's values for them are an attribute, computed on first access:
    `vgg.conv1_1`, ..., `vgg.pool5`, `vgg.fc6`, `vgg.relu6`, ..., `vgg.prob`. The network is built, and its weights
    are read, only up to the deepest layer accessed so far.

    Args:
        vgg_npy_path: A weights file of any known format, or `random:SEED`; None stands for the ImageNet weights (the
            file that FLOWERS_BATCH_WEIGHTS names, else the cached file, else a download).

    Raises:
        WeightsError: There are no such weights.
        DownloadError: They cannot be downloaded.
    """

    network: ClassVar[str]

    def __init__(self, vgg_npy_path: str | os.PathLike[str] | None = None):
        name = "imagenet" if vgg_npy_path is None else os.fspath(vgg_npy_path)
        self._weights = weights.find(name, self.network)
        self._images: NDArray[np.float32] | None = None
        self._model: Any = None
        self._deepest = ""
        self._values: dict[str, NDArray[np.float32]] = {}

    def build(self, rgb: ArrayLike) -> None:
        """Set the images for which the layers are computed.

        Args:
            rgb: [N, 224, 224, 3], RGB in [0, 1], as `utils.load_image` returns them.

        Raises:
            ValueError: The images have another shape.
        """
        images = np.asarray(rgb, np.float32)
        if images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3):
            raise ValueError(f"Images must have the shape [N, {SIDE}, {SIDE}, 3]. Received: {list(images.shape)}.")
        self._images, self._values = images * 255, {}

    def __getattr__(self, name: str) -> NDArray[np.float32]:
        if name.startswith("_") or name not in layer_names(self.network):
            raise AttributeError(f"{type(self).__name__} has no layer {name}.")
        if self._images is None:
            raise AttributeError(f"{name} has no values yet: call build with images first.")
        if name not in self._values:
            self._values[name] = self._model_up_to(name).predict_on_batch(self._images)
        return self._values[name]

    def _model_up_to(self, name: str) -> Any:
        import keras

        if not self._deepest or deepest_layer(self.network, [name, self._deepest]) != self._deepest:
            self._model, self._deepest = None, ""  # frees the memory before the next network is built
            self._model = build(self.network, name, weights.load(self._weights, self.network, name))
            self._deepest = name
        model = keras.Model(self._model.input, self._model.get_layer(name).output)
        compile_for_prediction(model)
        return model
