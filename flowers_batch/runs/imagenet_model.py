"""VGG16's own 1000 classes as a model."""

from __future__ import annotations

import numpy as np

from flowers_batch.classifier.head import Head
from flowers_batch.classifier.model_folder import Model
from flowers_batch.config import IMAGENET, EncodeConfig, PredictConfig
from flowers_batch.dataset.run_folder import Job
from flowers_batch.encoding.networks import codes_fingerprint, weights_identity


def imagenet_model(config: PredictConfig, before: Job | None, notes: list[str]) -> Model:
    """VGG16's own classifier as a model: its codes are the logits of layer `fc8`, its head is a softmax.

    Args:
        config: Its weights take the place of the published ones.
        before: What made the folder that is gone on with, whose precision is kept.
        notes: Is told if classes are numbered, since their names cannot be had.
    """
    encoding = EncodeConfig(weights=config.weights or IMAGENET, layer="fc8", code_dtype="float32")
    weights, name = weights_identity(encoding)
    classes = _imagenet_classes(notes)
    head = Head(classes, np.zeros(len(classes), np.float32), np.ones(len(classes), np.float32), ())
    precision = before.fingerprint.precision if before else encoding.precision
    return Model(head, codes_fingerprint(encoding, weights, precision), name, "", "", {}, {}, {})


def _imagenet_classes(notes: list[str]) -> tuple[str, ...]:
    from tensorflow_vgg.download import DownloadError
    from tensorflow_vgg.imagenet import class_names
    from tensorflow_vgg.network import CLASSES

    try:
        return tuple(class_names())
    except DownloadError as error:
        notes.append(f"Classes are numbered, since ImageNet's names for them cannot be had: {error}")
        return tuple(f"class {number}" for number in range(CLASSES))
