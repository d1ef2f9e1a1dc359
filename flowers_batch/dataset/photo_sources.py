"""Opens photos by their path or URL, wherever they are: files, or shrunk ones."""

from __future__ import annotations

from flowers_batch.dataset.job import JOB
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import PIXELS
from flowers_batch.dataset.shrunk import ShrunkSource
from flowers_batch.errors import InputError
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.skipping import SKIP_SYSTEM, Skipping
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.json_files import read_json
from flowers_batch.storage.opening import PathOrUrl, open_folder


def open_photos(where: PathOrUrl, root: str | None = None, skipping: Skipping = SKIP_SYSTEM) -> Source:
    """Open photos as a source: a folder of pixels, or whatever `open_source` opens.

    Args:
        where, root, skipping: As for `open_source`. Of pixels, names were left out when they were made, so that only
            `exclude` applies to them.

    Raises:
        InputError: As `open_source` raises it; or the folder of pixels is not finished.
    """
    if not holds_pixels(open_folder(where)):
        return open_source(where, root, skipping)
    source = ShrunkSource(open_run(where, PIXELS, {}), Skipping(include_hidden=True, exclude=skipping.exclude))
    if root is not None:
        raise InputError(f"`root` is for lists of paths, and {source.url} holds shrunk photos: leave it out.")
    return source


def open_originals(where: PathOrUrl, root: str | None = None, skipping: Skipping = SKIP_SYSTEM) -> Source:
    """Open photos of which more is needed than their pixels.

    Args:
        where, root, skipping: As for `open_source`.

    Raises:
        InputError: As `open_source` raises it; or these are shrunk photos.
    """
    if holds_pixels(folder := open_folder(where)):
        raise InputError(
            f"{folder.url} holds shrunk photos, of which only pixels are left: give the photos that they were made "
            "from instead."
        )
    return open_source(where, root, skipping)


def holds_pixels(folder: Folder) -> bool:
    """Return whether a folder is one of pixels. A folder of photos may have a file of the same name as a job's."""
    try:
        content = read_json(folder, JOB)
    except (FileNotFoundError, InputError):
        return False
    return isinstance(content, dict) and content.get("kind") == PIXELS
