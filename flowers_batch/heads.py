"""The classifier on top of the codes, as plain arrays: probabilities, saving, loading. No pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from flowers_batch.config import Fingerprint, InputError
from flowers_batch.storage import Folder, Where, open_folder

ARRAYS, MODEL, METRICS, SPLIT = "head.safetensors", "model.json", "metrics.json", "split.parquet"
# Of a network that was fine-tuned: its weights, and the codes folder that it made. They lie in the model folder, and
# `model.json` names them without a path, so that they are found wherever that is moved to.
NETWORK, OWN_CODES = "network.safetensors", "codes"

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Head:
    """Standardisation, then fully connected layers with a ReLU between them, then a softmax.

    Attributes:
        classes: Names, in the order of the probabilities.
        mean, scale: float32 [D]: what is taken from a code, and what it is then divided by.
        layers: Kernel float32 [in, out] and bias float32 [out] of each.
        temperature: What logits are divided by; 1 leaves them.
        threshold: The probability below which a label is said to be unknown; None says none is.
    """

    classes: tuple[str, ...]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: tuple[Layer, ...]
    temperature: float = 1.0
    threshold: float | None = None

    def logits(self, codes: NDArray[np.floating]) -> NDArray[np.float32]:
        """What the temperature divides, float32 [N, classes], of codes [N, D]."""
        return logits((codes.astype(np.float32) - self.mean) / self.scale, self.layers)

    def probabilities(self, codes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Probabilities float32 [N, classes] of codes [N, D]."""
        return self.probabilities_of(self.logits(codes))

    def probabilities_of(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities float32 [N, classes] of logits [N, classes]."""
        values = logits / np.float32(self.temperature)
        values = np.exp(values - values.max(1, keepdims=True))
        return values / values.sum(1, keepdims=True)

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """All arrays by name."""
        named = {"mean": self.mean, "scale": self.scale}
        for number, (kernel, bias) in enumerate(self.layers):
            named |= {f"layer{number}.kernel": kernel, f"layer{number}.bias": bias}
        return named

    @property
    def identity(self) -> str:
        """SHA-256, in hexadecimal, of everything that a label depends on."""
        digest = hashlib.sha256(json.dumps([self.classes, self.temperature, self.threshold]).encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def logits(values: NDArray[np.float32], layers: Sequence[Layer]) -> NDArray[np.float32]:
    """What layers make of standardised codes [N, D], with a ReLU between them: float32 [N, classes]."""
    for number, (kernel, bias) in enumerate(layers):
        values = (np.maximum(values, 0) if number else values) @ kernel + bias
    return values


@dataclass(frozen=True)
class Model:
    """A head, and what it was trained on: `model.json`.

    Attributes:
        head: The classifier.
        fingerprint: Of the codes that it was trained on, and takes.
        weights: The name of the network's weights.
        codes: The codes folder that it was trained on.
        images: Where the images of those codes lie.
        split: How the labelled photos were divided: photos on each side, and groups.
        training: The kind of the head, and what was asked of the training.
        versions: Versions of the libraries that trained it.
    """

    head: Head
    fingerprint: Fingerprint
    weights: str
    codes: str
    images: str
    split: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, str]


def save_model(folder: Folder, model: Model) -> None:
    """Publishes `head.safetensors`, then `model.json`, which tells the head's identity."""
    head = model.head
    with folder.publish(ARRAYS) as scratch:
        Path(scratch).write_bytes(save({name: np.ascontiguousarray(array) for name, array in head.arrays.items()}))
    description = {
        "classes": head.classes,
        "temperature": head.temperature,
        "threshold": head.threshold,
        "identity": head.identity,
        "fingerprint": asdict(model.fingerprint),
        "weights": _inside(folder, model.weights),
        "codes": _inside(folder, model.codes),
        "images": model.images,
        "split": model.split,
        "training": model.training,
        "versions": model.versions,
    }
    folder.write_json(MODEL, description)


def load_model(where: Where) -> Model:
    """Loads a model folder.

    Raises:
        InputError: There is none, or its two files do not belong together.
    """
    folder = open_folder(where)
    try:
        described = folder.read_json(MODEL)
        with folder.open(ARRAYS) as file:
            arrays = load(file.read())
        head = Head(
            classes=tuple(described["classes"]),
            mean=arrays["mean"],
            scale=arrays["scale"],
            layers=tuple(
                (arrays[f"layer{number}.kernel"], arrays[f"layer{number}.bias"])
                for number in range((len(arrays) - 2) // 2)
            ),
            temperature=described["temperature"],
            threshold=described["threshold"],
        )
        identity = described["identity"]
        rest = {name: described[name] for name in ("weights", "codes", "images", "split", "training", "versions")}
        rest |= {name: folder.url_of(rest[name]) for name in ("weights", "codes") if rest[name] in (NETWORK, OWN_CODES)}
        fingerprint = Fingerprint.from_json(described["fingerprint"])
    except FileNotFoundError:
        raise InputError(f"{folder.url} is not a model folder: make one with `flowers-batch train`.") from None
    except (KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"The model in {folder.url} cannot be read ({error}): train it anew.") from None
    if head.identity != identity:
        raise InputError(f"{ARRAYS} in {folder.url} does not belong to the {MODEL} beside it: train the model anew.")
    return Model(head, fingerprint, **rest)


def _inside(folder: Folder, name: str) -> str:
    """A name without the path of the model folder, if it is that of something in it."""
    return next((own for own in (NETWORK, OWN_CODES) if name == folder.url_of(own)), name)
