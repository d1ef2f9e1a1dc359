"""Weights by name: finding them on this machine, their identity, converting them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

from flowers_batch.errors import InputError
from flowers_batch.storage.folder import open_folder, split_file


def weights_on_this_machine(name: str) -> str:
    """Return the path of weights in the cache if their name is a URL, copied once per machine; else the name.

    Raises:
        InputError: There is no such file.
    """
    if "://" not in name:
        return name
    from tensorflow_vgg.download import cache_folder

    folder, file = split_file(name)
    if not folder.exists(file):
        raise InputError(f"There is no weights file {name}: check its name.")
    info = folder.filesystem.get_file_info(folder.at(file))
    key = hashlib.sha256(f"{name} {info.size} {info.mtime}".encode()).hexdigest()[:16]
    cache = open_folder(cache_folder())
    local = f"{key}-{file}"
    if not cache.exists(local):
        with cache.locked():
            if not cache.exists(local):  # another actor of this machine may have copied it meanwhile
                cache.sweep()
                with cache.publish(local) as scratch:
                    folder.copy_to(file, scratch)
    return cache.at(local)


def convert_weights(source: str, target: str, dtype: str) -> None:
    """Convert weights as `tensorflow_vgg.weights.convert` does; both files may be URLs.

    Raises:
        InputError, WeightsError: The source is not a weights file, or the target's format cannot be written.
        RunError: The target cannot be written.
    """
    from tensorflow_vgg.formats import WRITERS
    from tensorflow_vgg.weights import convert

    folder, name = split_file(target)
    if os.path.splitext(name)[1] not in WRITERS:
        raise InputError(f"{target} cannot be written: its name must end in {', '.join(WRITERS)}.")
    local = weights_on_this_machine(source)
    with folder.publish(name) as scratch:
        convert(local, scratch, dtype)


@contextmanager
def weights_errors() -> Iterator[None]:
    """Raise errors of weights as an `InputError`, which the user can fix."""
    from tensorflow_vgg.download import DownloadError
    from tensorflow_vgg.weights import WeightsError

    try:
        yield
    except (WeightsError, DownloadError) as error:
        raise InputError(str(error)) from None
