"""Weights by name: finding them on this machine, their identity, converting them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyarrow import fs

from flowers_batch.errors import InputError
from flowers_batch.progress import no_progress
from flowers_batch.storage.folder import LOCK, Folder
from flowers_batch.storage.locks import wait_for_lock
from flowers_batch.storage.opening import open_folder, split_file


def weights_on_this_machine(name: str, progress: Callable[[], None] = no_progress) -> str:
    """Return the path of weights in the cache if their name is a URL, copied once per machine; else the name.

    While another process of this machine copies weights, it waits.

    Args:
        name: The weights.
        progress: Called with each piece that is copied, and twice a second while it waits.

    Raises:
        InputError: There is no such file, it changed while it was copied, or the cache cannot be written.
        RunError: The file cannot be read, or the cache's disk is full.
    """
    if "://" not in name:
        return name
    from tensorflow_vgg.download import make_cache_folder

    folder, file = split_file(name)
    version = _version(folder, file)
    with weights_errors():
        cache = open_folder(make_cache_folder())
    local = f"{hashlib.sha256(f'{name} {version}'.encode()).hexdigest()[:16]}-{file}"
    if cache.exists(local):
        return cache.at(local)
    with wait_for_lock(cache.at(LOCK), cache.url, progress):
        if not cache.exists(local):  # another process may have copied it meanwhile
            cache.sweep()
            with cache.publish(local) as scratch:
                folder.copy_to(file, scratch, progress)
                if _version(folder, file) != version:
                    raise InputError(f"{name} was replaced while it was copied: run the same command again.")
    return cache.at(local)


def _version(folder: Folder, name: str) -> str:
    """Return what changes when a file is replaced: its size and its time."""
    info = folder.info(name)
    if info.type == fs.FileType.NotFound:
        raise InputError(f"There is no weights file {folder.url_of(name)}: check its name.")
    return f"{info.size} {info.mtime}"


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
