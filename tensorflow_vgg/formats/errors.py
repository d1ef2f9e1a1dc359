"""The exception for unusable weights, and the checks and messages that all file formats share."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import IO, Any

from tensorflow_vgg.network import Shapes

_MAX_LISTED = 40  # layers: VGG19 has 19
_MAX_REASON = 200  # characters


class WeightsError(ValueError):
    """Weights were not found, or a file does not hold what the network needs."""


def missing_layer(path: Path, layer: str, stored: Iterable[str]) -> WeightsError:
    """Return the error for a layer that a file lacks.

    Args:
        path: The file.
        layer: The missing layer, as this format names it.
        stored: The layers that the file does have.
    """
    names = sorted(islice(stored, _MAX_LISTED + 1))
    listed = ", ".join(printable(name) for name in names[:_MAX_LISTED]) + (", ..." if names[_MAX_LISTED:] else "")
    return WeightsError(f"{path} has no layer {layer}; it has {listed or 'none'}. Choose another file.")


def printable(text: str, length: int = _MAX_REASON) -> str:
    """Return text from a file on one line, shortened, with its control characters and the like replaced."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:length])


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading.

    Raises:
        OSError: It cannot be opened, or is a device or a pipe, which might never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    return os.fdopen(descriptor, "rb")


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
    if isinstance(error, MemoryError):
        reason = "reading it takes more memory than its arrays need"
    return WeightsError(f"{path} is not {expected}: {printable(reason)}. Restore it, or choose another file.")


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
