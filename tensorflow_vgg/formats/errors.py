"""The exception for unusable weights, and the checks and messages that all file formats share."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensorflow_vgg.network import Shapes


class WeightsError(ValueError):
    """Weights were not found, or a file does not hold what the network needs."""


def missing_layer(path: Path, layer: str, stored: Iterable[str]) -> WeightsError:
    """Return the error for a layer that a file lacks.

    Args:
        path: The file.
        layer: The missing layer, as this format names it.
        stored: The layers that the file does have.
    """
    return WeightsError(
        f"{path} has no layer {layer}; it has {', '.join(sorted(stored)) or 'none'}. Choose another file."
    )


def unreadable(path: Path, expected: str, error: Exception) -> WeightsError:
    """Return the error for a file that a format's library cannot read.

    Args:
        path: The file.
        expected: What the file should be, with its article.
        error: The library's exception; the first line of its message is the reason.
    """
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE):
        return WeightsError(f"{path} cannot be read ({os.strerror(error.errno)}): check its disk and permissions.")
    reason = (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")
    return WeightsError(f"{path} is not {expected}: {reason}. Restore it, or choose another file.")


def check_part_count(path: Path, layer: str, count: int) -> None:
    """Raise unless a layer is stored as two arrays: a kernel and a bias."""
    if count != 2:
        raise WeightsError(f"Layer {layer} in {path} should be a kernel and a bias. Received: {count}.")


def check_arrays(path: Path, layer: str, kernel: Any, bias: Any, shapes: Shapes) -> None:
    """Raise unless kernel and bias have the shapes that a layer needs and are floating-point.

    Args:
        path: The file.
        layer: The layer's name.
        kernel: An array, or an HDF5 dataset that was not read yet.
        bias: Likewise.
        shapes: The shapes of kernel and bias that the layer needs.
    """
    check_shapes(path, layer, (kernel.shape, bias.shape), shapes)
    if kernel.dtype.kind != "f" or bias.dtype.kind != "f":
        raise WeightsError(
            f"Layer {layer} in {path} should hold floating-point numbers. Received: {kernel.dtype}, {bias.dtype}."
        )


def check_shapes(path: Path, layer: str, received: tuple[tuple[int, ...], ...], expected: Shapes) -> None:
    """Raise unless the stored shapes of kernel and bias are the expected ones."""
    if received != expected:
        raise WeightsError(
            f"Layer {layer} in {path} should have the shapes {_format_shapes(expected)}. "
            f"Received: {_format_shapes(received)}."
        )


def _format_shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " and ".join("x".join(map(str, shape)) for shape in shapes)
