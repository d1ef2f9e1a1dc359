"""The network up to the layer of the codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.config import EXACT, FAST, IMAGENET, NULL_NETWORK, WEIGHTS_ENVIRONMENT, EncodeConfig
from flowers_batch.dataset.shrunk import ShrunkSource
from flowers_batch.dataset.tunings import UNKNOWN_TUNING, Tunings, validated_tunings
from flowers_batch.encoding.weights import weights_errors, weights_on_this_machine
from flowers_batch.errors import InputError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.json_values import parse_json
from flowers_batch.progress import no_progress
from flowers_batch.sources.source import Source

if TYPE_CHECKING:
    import keras

    from tensorflow_vgg.network import Parameters

# Of a weights file's metadata: which layers fine-tuning trained, and on what (JSON: see `dataset.tunings`).
TRAINED_FURTHER, TUNED_ON = "trained further", "tuned on"
NO_LAYER = "no layer"


class NullNetwork:
    """Stands in for VGG in tests and benchmarks: a code is 768 of the photo's pixels, and takes hardly any time."""

    width = 768

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return codes [N, 768] of pixels [N, 224, 224, 3]: a 16x16 grid of them."""
        return np.ascontiguousarray(pixels[:, 7::14, 7::14]).reshape(len(pixels), -1)


def codes_fingerprint(config: EncodeConfig, weights: str, precision: str) -> Fingerprint:
    """Return the fingerprint of codes that are made in this way.

    Args:
        config: How photos become codes.
        weights: The identity of the weights.
        precision: What the network computes in; while that is `auto`, so is an automatic decode mode.
    """
    made = Fingerprint(
        *(config.network, config.layer, weights, precision, config.code_dtype, config.pool),
        decode=decode_mode(config, precision),
        uint8_pixels=config.uint8_pixels,
    )
    return made.with_precision(precision)


def decode_mode(config: EncodeConfig, precision: str) -> str:
    """Return how photos are decoded: as `config` says, or `auto`matically as exactly as the network computes."""
    if config.decode != "auto":
        return config.decode
    return {"float32": EXACT, "bfloat16": FAST}.get(precision, "auto")


def fingerprint_over(source: Source, fingerprint: Fingerprint) -> Fingerprint:
    """Return the fingerprint of codes that have another one if they are made from photos as files.

    Of shrunk photos, the pixels are those that the folder has, whatever this version of the package would make.

    Args:
        source: The photos.
        fingerprint: Of codes from files.
    """
    if not isinstance(source, ShrunkSource):
        return fingerprint
    pixels = source.made
    made = replace(fingerprint, preprocessing=pixels.preprocessing, decode=pixels.decode, uint8_pixels=True)
    return made.with_precision(made.precision)


def check_decoding(source: Source, config: EncodeConfig) -> None:
    """Refuse shrunk photos that were decoded in another way than is asked for.

    Raises:
        InputError: They were.
    """
    if isinstance(source, ShrunkSource) and config.decode not in ("auto", source.made.decode):
        raise InputError(
            f"The photos in {source.url} were shrunk with `decode` {source.made.decode}: leave `decode` "
            f"{config.decode} out, or shrink them again, into another folder."
        )


def code_width(config: EncodeConfig) -> int:
    """Return how many numbers a code has.

    Raises:
        InputError: The network has no such layer, or the layer's output is a feature map and `pool` is not given.
    """
    if config.network == NULL_NETWORK:
        return NullNetwork.width
    from tensorflow_vgg.network import layer_shape

    try:
        shape = layer_shape(config.network, config.layer)
    except ValueError as error:
        raise InputError(str(error)) from None
    if len(shape) == 1 and config.pool:
        raise InputError(f"The output of layer {config.layer} is a row already: leave `pool` {config.pool} out.")
    if len(shape) == 3 and not config.pool:
        raise InputError(
            f"The output of layer {config.layer} is a feature map ({shape[0]} x {shape[1]} x {shape[2]}), not a row: "
            "reduce it with `pool` avg, max or flatten, or choose a layer such as relu6."
        )
    return shape[-1] if config.pool in ("avg", "max") else math.prod(shape)


def build_network(
    config: EncodeConfig,
    precision: str,
    dropout: float = 0.0,
    seed: int = 0,
    progress: Callable[[], None] = no_progress,
) -> tuple[keras.Model, str]:
    """Return VGG, built up to the layer of the codes, and the identity of its weights.

    Args:
        config: How photos become codes.
        precision, dropout, seed: As for `tensorflow_vgg.network.build`.
        progress: Called with each layer, and each piece of weights that are downloaded first.

    Raises:
        InputError: The weights are not available, or do not fit the network.
    """
    from tensorflow_vgg import weights as vgg
    from tensorflow_vgg.network import build

    hasher = vgg.IdentityHasher()
    with weights_errors():
        found = vgg.find(weights_on_this_machine(config.weights, progress), config.network, progress=progress)
        parameters = hasher.hash_stream(_watched(vgg.load(found, config.network, config.layer), progress))
        model = build(config.network, config.layer, parameters, precision, config.pool, dropout, seed)
    return model, hasher.hexdigest


def _watched(parameters: Iterable[Parameters], progress: Callable[[], None]) -> Iterator[Parameters]:
    for layer in parameters:
        progress()
        yield layer


def ends_at_pool5(config: EncodeConfig) -> bool:
    """Return whether weights have a network's convolutions, but not the fully connected layers that the codes need.

    Only the names of the weights' layers are read.

    Raises:
        InputError: The weights are not available.
    """
    if config.network == NULL_NETWORK:
        return False
    from tensorflow_vgg import weights as vgg

    code_width(config)
    with weights_errors():
        found = vgg.find(weights_on_this_machine(config.weights), config.network)
        missing = vgg.missing_layers(found, config.network, config.layer)
    return bool(missing) and all(name.startswith("fc") for name in missing)


def check_layer(config: EncodeConfig) -> None:
    """Raise an error that names usable settings if the weights end before the fully connected layers.

    Raises:
        InputError: They do, and the codes need these layers; or the weights are not available.
    """
    if ends_at_pool5(config):
        origin = f", which {WEIGHTS_ENVIRONMENT} names," if config.weights == IMAGENET else ""
        raise InputError(
            f"The weights {config.weights}{origin} end before the fully connected layers, which {config.layer} needs: "
            "use `layer` pool5 `pool` avg, or choose another file."
        )


def weights_identity(config: EncodeConfig) -> tuple[str, str]:
    """Return the identity of a network's weights, and a name by which any machine finds them.

    Raises:
        InputError: They are not available, or do not fit the network.
    """
    if config.network == NULL_NETWORK:
        return NULL_NETWORK, NULL_NETWORK
    from tensorflow_vgg import weights as vgg

    code_width(config)
    with weights_errors():
        found = vgg.find(weights_on_this_machine(config.weights), config.network)
        name = config.weights if "://" in config.weights else found.name
        return vgg.identity(vgg.load(found, config.network, config.layer)), name


def tunings_of(config: EncodeConfig) -> Tunings:
    """Return what a network's weights were fine-tuned on, as the fine-tuning wrote it into their file.

    Raises:
        InputError: The weights are not available.
    """
    if config.network == NULL_NETWORK:
        return ()
    from tensorflow_vgg import weights as vgg
    from tensorflow_vgg.formats import metadata_of

    with weights_errors():
        found = vgg.find(weights_on_this_machine(config.weights), config.network)
        metadata = metadata_of(found.path) if found.path else {}
    if metadata.get(TRAINED_FURTHER, NO_LAYER) == NO_LAYER:
        return ()
    try:
        return validated_tunings(parse_json(metadata[TUNED_ON]))
    except (KeyError, TypeError, ValueError):  # version 0.1 wrote only which layers were trained
        return (UNKNOWN_TUNING,)
