"""Opens folders and files by the paths and URLs that a user gives."""

from __future__ import annotations

import os
from urllib.parse import unquote

from pyarrow import fs

from flowers_batch.errors import InputError
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.local_files import is_utf8
from flowers_batch.storage.stores import open_store
from flowers_batch.storage.urls import check_path, scheme_of, with_known_scheme

PathOrUrl = str | os.PathLike[str]  # a path, or a URL that `pyarrow.fs` opens


def open_folder(where: PathOrUrl) -> Folder:
    """Return a folder by its path or URL; it need not exist.

    Args:
        where: In a URL, spaces and other signs may stand as they are or percent-encoded; `s3a` and `s3n` are `s3`.

    Raises:
        InputError: The path is not UTF-8, the URL may contain a secret, or `pyarrow.fs` knows no such file system.
        RunError: The store gives no access.
    """
    name = os.fspath(where)
    if scheme_of(name):
        url = with_known_scheme(name)
        filesystem, path = open_store(url)
        return Folder(path if isinstance(filesystem, fs.LocalFileSystem) else url.rstrip("/"), filesystem, path)
    check_path(name)
    path = os.path.abspath(name)
    _check_name(path)
    return Folder(path, fs.LocalFileSystem(), path)


def split_file(where: PathOrUrl) -> tuple[Folder, str]:
    """Return the folder and the name of a file, by its path or URL.

    Raises:
        InputError: As `open_folder` raises it.
    """
    file = os.fspath(where)
    _check_name(file)
    base, query, options = file.partition("?") if scheme_of(file) else (file, "", "")
    parent, slash, name = base.rpartition("/")
    folder = open_folder(f"{parent or slash or '.'}{query}{options}")
    return folder, unquote(name) if scheme_of(file) else name


def _check_name(name: str) -> None:
    if not is_utf8(raw := os.fsencode(name)):
        raise InputError(
            f"The name {raw.decode(errors='backslashreplace')} is not UTF-8: rename it, or give a link to it."
        )
