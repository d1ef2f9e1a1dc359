"""Paths in a folder of images: relative to it, and never out of it.

Listing a folder gives no other paths. A manifest that someone else wrote may have any.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.errors import InputError
from flowers_batch.sources.images import path_bytes
from flowers_batch.storage.folder import NOT_UTF8
from flowers_batch.text import shortened

# A part that is empty, `.` or `..`, as an absolute path has it, too; or a NUL, which ends a name for the kernel.
_ODD = r"(?:^|/)\.{0,2}(?:/|%s)|\x00"
_ODD_PATH, _ODD_BYTES = re.compile(_ODD % r"\Z"), re.compile((_ODD % r"\Z").encode())
_ODD_RE2 = _ODD % r"\z"


def is_relative(path: str) -> bool:
    """Return whether an image's key names a file below the folder, before links are followed."""
    if not _ODD_PATH.search(path):
        return True
    return path.startswith(NOT_UTF8) and not _ODD_BYTES.search(path_bytes(path))


def are_relative(paths: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return `is_relative` of each: string [n] to bool [n]."""
    odd = pc.match_substring_regex(paths, _ODD_RE2)
    if not pc.any(odd).as_py():
        return pc.invert(odd)
    return pa.array([is_relative(path) for path in paths.to_pylist()], pa.bool_())


def foreign_path(path: str, url: str) -> InputError:
    """Return the error for an image of a manifest or of a shard that its source cannot have listed.

    Args:
        path: Its key.
        url: The source.
    """
    return InputError(
        f"The row of {shortened(path)} names no image of {url}, so it was altered or belongs to other images: restore "
        "the run's folder, or begin in a new one."
    )
