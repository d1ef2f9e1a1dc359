"""Arrays that are computed from a run's codes, and kept in its folder for the next start."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.shard import Shard
from flowers_batch.errors import FlowersError
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.retries import with_retries

_IDENTITY = "identity"


def identity_of(run: Run, shards: Sequence[Shard], *settings: Any) -> str:
    """Return a digest of the codes and the settings that something is computed from.

    Args:
        run: The codes folder.
        shards: Those with the photos whose codes are used.
        settings: Values of JSON.
    """
    photos = [(shard.inputs_digest, shard.images) for shard in shards]
    return hashlib.sha256(json.dumps([run.job.fingerprint.digest, photos, settings]).encode()).hexdigest()


def keep_arrays(folder: Folder, name: str, identity: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to a file in a run's folder; without it they are computed again, so it is no error if that fails."""
    content = save({**arrays, _IDENTITY: _as_array(identity)})
    with suppress(FlowersError), folder.publish(name) as scratch:
        Path(scratch).write_bytes(content)


def read_arrays(folder: Folder, name: str, identity: str, max_bytes: int) -> dict[str, NDArray[Any]] | None:
    """Return arrays that `keep_arrays` wrote; None if there are none, or not of this identity.

    The folder may come from a stranger: a file is read up to `max_bytes`, nothing in it is decompressed or executed,
    and the caller checks the arrays.
    """
    try:
        with with_retries(lambda: folder.open(name)) as file:
            if file.size() > max_bytes:
                return None
            arrays = load(file.read())
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):  # none, or damaged
        return None
    return arrays if np.array_equal(arrays.pop(_IDENTITY, np.empty(0)), _as_array(identity)) else None


def _as_array(identity: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(identity), np.uint8)
