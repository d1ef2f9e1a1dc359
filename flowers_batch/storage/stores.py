"""Opening the file system that a URL leads to."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from pyarrow import fs

from flowers_batch.errors import InputError, first_line
from flowers_batch.storage.urls import CREDENTIAL_PARAMETERS, SUPPORTED, as_uri

_OBJECT_STORES = ("s3", "gcs", "abfs")  # pyarrow's names of those of its file systems that have keys, not folders


def open_store(url: str) -> tuple[fs.FileSystem, str]:
    """Return the file system that a URL leads to, and the name of its file or folder there.

    Raises:
        InputError: The URL contains credentials, or pyarrow cannot open it.
    """
    try:
        parts = urlsplit(as_uri(url))
    except ValueError as error:
        raise InputError(f"The URL cannot be opened: {first_line(error)} Correct it.") from None
    # A name alone before `@` is no secret: it is Azure's container, or Google's `anonymous`.
    if parts.password or CREDENTIAL_PARAMETERS & set(parse_qs(parts.query)):
        raise InputError(
            f"The URL of {parts.scheme}://{parts.hostname or ''}{parts.path} contains credentials, which would be "
            "written to disk with the run: give them by the environment or the machine's role."
        )
    try:
        filesystem, path = fs.FileSystem.from_uri(as_uri(url))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if "Unrecognized filesystem type" in str(error) and "@" not in url:
            raise InputError(
                f"{url.partition('?')[0]} cannot be opened: give a path, or a URL of {SUPPORTED}; copy what is "
                "elsewhere to one of these."
            ) from None
        if "@" in url or parts.query:  # a secret may be in it: one with a slash, or under another name
            raise InputError(
                f"The {parts.scheme} URL cannot be opened: check it, and leave credentials out if it has any."
            ) from None
        raise InputError(f"{url} cannot be opened: {first_line(error)} Check the URL.") from None
    if filesystem.type_name in _OBJECT_STORES and has_odd_parts(path):
        raise InputError(
            f"{url.partition('?')[0]} cannot be opened, since a part of it is empty, `.` or `..`: leave that part out, "
            "or copy the objects to other keys."
        )
    return filesystem, path


def has_odd_parts(key: str) -> bool:
    """Return whether a part of an object's key is empty, `.` or `..`: pyarrow does not open such objects."""
    key = key.rstrip("/")
    return bool(key) and not {"", ".", ".."}.isdisjoint(key.split("/"))
