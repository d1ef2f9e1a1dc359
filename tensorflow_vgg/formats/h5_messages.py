"""What the process that reads HDF5 and its parent agree on."""

from __future__ import annotations

LENGTH_BYTES = 4  # before each message


def keras_name(layer: str) -> str:
    """Return a layer's name in Keras' files: `block1_conv2` for `conv1_2`, `fc1` for `fc6`."""
    if layer.startswith("conv"):
        return f"block{layer[4]}_conv{layer[6]}"
    return {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}[layer]
