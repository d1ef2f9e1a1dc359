"""Opening the file system that a URL leads to."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import fs

from flowers_batch.errors import InputError, RunError, first_line
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.urls import as_uri, authority_of, check_url, scheme_of

_OBJECT_STORES = ("s3", "gcs", "abfs")  # pyarrow's names of those of its file systems that have keys, not folders
_RETRY_LIMIT = "retry_limit_seconds"
_RETRY_SECONDS = 30  # of Google's client, which otherwise waits for a quarter of an hour without a network
_CHECKED: set[tuple[str, str, str]] = set()  # accounts, containers and options of Azure that this process has used


def open_store(url: str) -> tuple[fs.FileSystem, str]:
    """Return the file system that a URL leads to, and the name of its file or folder there.

    Raises:
        InputError: The URL may contain a secret, or pyarrow cannot open it.
        RunError: Azure gives no access, or cannot be reached.
    """
    check_url(url)
    shown = url.partition("?")[0]
    try:
        filesystem, path = fs.FileSystem.from_uri(_with_retry_limit(as_uri(url)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{shown} cannot be opened ({reason_of(error)}): check the URL, its options and the connection."
        ) from None
    if filesystem.type_name in _OBJECT_STORES and has_odd_parts(path):
        raise InputError(
            f"{shown} cannot be opened, since a part of it is empty, `.` or `..`: leave that part out, or copy the "
            "objects to other keys."
        )
    if filesystem.type_name == "abfs":
        _check_azure(filesystem, path.partition("/")[0], url)
    return filesystem, path


def _with_retry_limit(uri: str) -> str:
    if scheme_of(uri) not in ("gs", "gcs") or f"{_RETRY_LIMIT}=" in uri.partition("?")[2]:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}{_RETRY_LIMIT}={_RETRY_SECONDS}"


def _check_azure(filesystem: fs.FileSystem, container: str, url: str) -> None:
    """Check that Azure gives access to a container, once per process.

    Without a token, most calls of pyarrow's Azure file system end the process by `std::terminate`. The one that looks
    for a file below a container raises an exception instead.

    Raises:
        InputError: The URL names no container.
        RunError: There is no access.
    """
    shown, _, options = url.partition("?")
    if not container:
        raise InputError(f"{shown} names no container: write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH.")
    checked = (authority_of(url), container, options)
    if checked not in _CHECKED:
        try:
            filesystem.get_file_info(f"{container}/_")
        except (OSError, pa.ArrowException) as error:
            raise RunError(
                f"Azure gives no access to {shown} ({first_line(error).rpartition(': ')[2].rstrip('.')}): check the "
                "connection, and the credentials in the environment, or the machine's role."
            ) from None
        _CHECKED.add(checked)


def has_odd_parts(key: str) -> bool:
    """Return whether a part of an object's key is empty, `.` or `..`: pyarrow does not open such objects."""
    key = key.rstrip("/")
    return bool(key) and not {"", ".", ".."}.isdisjoint(key.split("/"))
