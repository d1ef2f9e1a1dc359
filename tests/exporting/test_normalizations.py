"""Exported models normalise codes as the head does."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import some_head

from flowers_batch.classifier.normalization import NORMALIZATIONS
from flowers_batch.config import EncodeConfig
from flowers_batch.encoding.networks import build_network
from flowers_batch.exporting.keras_model import write_keras
from flowers_batch.exporting.onnx_model import write_onnx
from tensorflow_vgg.images import SIDE

CLASSES = ("a", "b", "c")


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_keras_and_onnx_give_the_probabilities_of_the_head(tmp_path, name):
    import keras
    import onnxruntime

    network, _ = build_network(EncodeConfig(weights="random:0", layer="pool1", pool="avg"), "float32")
    photos = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    photos[1] = 0
    codes = network.predict_on_batch(photos.astype(np.float32))
    head = some_head(CLASSES, codes.shape[1], normalization=name, hidden=5, temperature=1.5)
    expected = head.probabilities(codes)

    write_onnx(network, head, tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx")
    found = np.concatenate([session.run(["probabilities"], {"image": photo})[0] for photo in photos])
    np.testing.assert_allclose(found, expected, atol=1e-4)

    write_keras(network, head, tmp_path / "head.keras")
    outputs = keras.models.load_model(tmp_path / "head.keras").predict_on_batch(photos.astype(np.float32))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-4)
