"""What `vgg16.Vgg16` and `vgg19.Vgg19` share: a network whose layers are attributes."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tensorflow_vgg import weights
from tensorflow_vgg.images import SIDE
from tensorflow_vgg.network import build, compile_for_prediction, deepest, layer_names


class Vgg:
    """A VGG network as the course notebook uses it.

    `build` takes the images; then each layer's values for them are an attribute, computed when it is first asked
    for: `vgg.conv1_1`, ..., `vgg.pool5`, `vgg.fc6`, `vgg.relu6`, ..., `vgg.prob`. The network is built, and its
    weights read, no further than the deepest layer that was asked for.

    Args:
        vgg_npy_path: A weights file of any known format, or `random:SEED`; None takes the ImageNet weights (the
            file that FLOWERS_BATCH_WEIGHTS names, else the cache, else a download).

    Raises:
        WeightsError, DownloadError: There are no such weights.
    """

    network: ClassVar[str]

    def __init__(self, vgg_npy_path: str | os.PathLike[str] | None = None):
        name = "imagenet" if vgg_npy_path is None else os.fspath(vgg_npy_path)
        self._weights = weights.find(name, self.network)
        self._images: NDArray[np.float32] | None = None
        self._model: Any = None
        self._depth = ""
        self._values: dict[str, NDArray[np.float32]] = {}

    def build(self, rgb: ArrayLike) -> None:
        """Takes the images that the layers are to be computed for.

        Args:
            rgb: [N, 224, 224, 3], RGB in [0, 1], as `utils.load_image` gives them.

        Raises:
            ValueError: They have another shape.
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
            self._values[name] = self._model_to(name).predict_on_batch(self._images)
        return self._values[name]

    def _model_to(self, name: str) -> Any:
        import keras

        if not self._depth or deepest(self.network, [name, self._depth]) != self._depth:
            self._model, self._depth = None, ""  # two networks need not be in memory
            self._model = build(self.network, name, weights.load(self._weights, self.network, name))
            self._depth = name
        model = keras.Model(self._model.input, self._model.get_layer(name).output)
        compile_for_prediction(model)
        return model
