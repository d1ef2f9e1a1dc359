"""Opens a source of images by its path or URL."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
from pyarrow import fs

from flowers_batch.errors import InputError, first_line
from flowers_batch.sources.folders import FolderSource
from flowers_batch.sources.list_files import READERS
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.skipping import SKIP_SYSTEM, Skipping
from flowers_batch.sources.source import Source
from flowers_batch.sources.tables import TableSource, image_columns
from flowers_batch.sources.tars import TarSource
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.io_errors import raise_io_error
from flowers_batch.storage.opening import PathOrUrl, open_folder, split_file
from flowers_batch.storage.parquet_files import read_parquet_schema
from flowers_batch.storage.retries import with_retries

_COMPRESSED = ("gz", "tgz", "bz2", "tbz2", "xz", "txz", "zst", "zip")


def open_source(where: PathOrUrl, root: str | None = None, skipping: Skipping = SKIP_SYSTEM) -> Source:
    """Open a source of images: a folder; a list of paths (`.txt`, `.csv`, `.tsv`, `.parquet`); a `.tar`; a table.

    Args:
        where: Its path or URL. A `*` in the last part of it stands for any text, and the pattern for all files that
            match, such as `shards/*.tar`; in a folder, only images are looked for.
        root: What the paths of a list are relative to; None: the folder of the list.
        skipping: Which names are left out. Lists and tables name their photos, so that only `exclude` applies to them.

    Returns:
        The source, which has listed nothing yet.

    Raises:
        InputError: There is no such file or folder, it is of another kind, or `root` is given without a list.
    """
    folder = open_folder(where)
    if folder.info().type == fs.FileType.Directory:
        source: Source = FolderSource(folder, skipping)
    else:
        source = _open_files(*split_file(where), root, skipping)
    if root is not None:
        if not isinstance(source, ListSource):
            raise InputError(f"`root` is for lists of paths, and {source.url} is not one: leave it out.")
        if not open_folder(root).exists():
            raise InputError(f"There is no folder {open_folder(root).url}: check `root`.")
    return source


def _open_files(folder: Folder, pattern: str, root: str | None, skipping: Skipping) -> Source:
    url = folder.url_of(pattern)
    names = folder.matching(pattern)
    if not names:
        raise InputError(f"There is no {'file' if '*' in pattern else 'folder or file'} {url}: check its name.")
    kinds = {name.rpartition(".")[2].lower() for name in names}
    if len(kinds) > 1:
        raise InputError(f"{url} names files of several kinds ({', '.join(sorted(kinds))}): give one kind per run.")
    (kind,) = kinds
    if kind in _COMPRESSED:
        raise InputError(f"{url} is compressed, so that photos cannot be read at random: decompress it first.")
    if kind == "tar":
        return TarSource(folder, pattern, skipping)
    skipping = replace(skipping, include_hidden=True)
    if kind == "parquet" and image_columns(_schema(folder, names[0])):
        return TableSource(folder, pattern, skipping)
    if kind in READERS:
        return ListSource(folder, pattern, root, skipping)
    raise InputError(
        f"{url} is not a folder, nor a list (.txt, .csv, .tsv, .parquet), a .tar or a .parquet table of images: "
        "name one of these."
    )


def _schema(folder: Folder, name: str) -> pa.Schema:
    try:
        with with_retries(lambda: folder.open(name)) as file:
            return read_parquet_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise_io_error(folder.url_of(name), error)
        raise InputError(f"{folder.url_of(name)} cannot be read as Parquet: {first_line(error)} Restore it.") from None
