"""VGG16's own 1000 classes as a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flowers_batch.classifier.head import Head
from flowers_batch.classifier.model_folder import Model
from flowers_batch.classifier.normalization import STANDARDIZED, Normalization
from flowers_batch.config import IMAGENET, EncodeConfig, PredictConfig
from flowers_batch.dataset.job import Job
from flowers_batch.encoding.networks import codes_fingerprint, weights_identity


def imagenet_model(config: PredictConfig, before: Job | None, notes: list[str]) -> Model:
    """Return VGG16's own classifier as a model: its codes are the logits of layer `fc8`, its head is a softmax.

    Args:
        config: Its weights, if any, replace the published ones.
        before: The job of the folder that is resumed, whose precision and decode mode are kept.
        notes: Gains a sentence if the classes' names are not available, so that classes are numbered.
    """
    encoding = EncodeConfig(weights=config.weights or IMAGENET, layer="fc8", code_dtype="float32")
    weights, name = weights_identity(encoding)
    classes = _imagenet_classes(notes)
    # As in version 0.1, so that its predictions keep their fingerprint.
    unchanged = Normalization(STANDARDIZED, np.zeros(len(classes), np.float32), np.ones(len(classes), np.float32))
    head = Head(classes, unchanged, ())
    precision = encoding.precision
    if before:
        precision = before.fingerprint.precision
        encoding = replace(encoding, decode=before.fingerprint.decode)
    return Model(head, codes_fingerprint(encoding, weights, precision), name, "", "", {}, {}, {})


def _imagenet_classes(notes: list[str]) -> tuple[str, ...]:
    from tensorflow_vgg.download import DownloadError
    from tensorflow_vgg.imagenet import class_names
    from tensorflow_vgg.network import CLASSES

    try:
        return tuple(class_names())
    except DownloadError as error:
        notes.append(f"The classes are numbered, since ImageNet's names for them are not available: {error}")
        return tuple(f"class {number}" for number in range(CLASSES))
