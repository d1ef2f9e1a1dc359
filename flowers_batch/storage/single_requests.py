"""Objects of S3 by one request each: pyarrow asks for an object's size before it reads, which takes a second one."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from io import SEEK_END, BytesIO
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from flowers_batch.storage.folder import Folder
from flowers_batch.storage.urls import scheme_of

if TYPE_CHECKING:
    from obstore.store import S3Store

_READERS = 64  # per process: a list may name many buckets
_BLOCK_BYTES = 8 << 20  # of an object, which are in memory twice
_CHANCES = 3  # failures after which a reader that has never worked is not asked again
_RETRIES = 3  # after errors of the server, such as that there are too many requests
_LONGEST = timedelta(hours=1)  # that an object may take, as long as something of it arrives
_TIMED_OUT = "kind: Timeout"  # in the message of an error that has no class of its own
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # in the order in which pyarrow looks at them
# Files in which the AWS SDK of pyarrow looks for a profile, and the variables that name others.
_PROFILES = {
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
}


class SingleRequestReader:
    """Reads objects of one bucket by one request each; whatever fails is for pyarrow to try.

    Args:
        store: The bucket.
    """

    def __init__(self, store: S3Store):
        self._store = store
        self._has_worked, self._failures = False, 0

    def read(self, key: str, check_size: Callable[[int], None]) -> bytes | None:
        """Return an object's bytes; None if pyarrow has to read it, or to say why it cannot be read.

        Args:
            key: The object, without its bucket.
            check_size: Called with its size before its bytes are taken; it raises an exception if that is too much.

        Raises:
            TimeoutError: The server, which has answered before, stalls.
        """
        import obstore
        from obstore.exceptions import BaseError

        if key.endswith("/") or (not self._has_worked and self._failures >= _CHANCES):
            return None
        try:
            found = obstore.get(self._store, key)
            size = found.range[1]
            check_size(size)
            blocks = found.stream(_BLOCK_BYTES)
            content = BytesIO(next(blocks, b""))  # which copies neither its first block, nor itself at the end
            content.seek(0, SEEK_END)
            while content.tell() < size:
                content.write(next(blocks))
        except (FileNotFoundError, StopIteration):  # the latter: it ends before its size
            return None
        except (BaseError, OSError, ValueError) as error:  # ValueError: a control character in the key
            self._failures += 1
            if self._has_worked and _TIMED_OUT in str(error):
                raise TimeoutError(str(error)) from None
            return None
        self._has_worked = True
        return content.getvalue() if content.tell() == size else None


@lru_cache(_READERS)
def single_request_reader(folder: Folder, stall_seconds: float) -> SingleRequestReader | None:
    """Return what reads objects of a folder's bucket by one request; None if only pyarrow can.

    That is so for other stores than S3, and where pyarrow would take the credentials from a profile, or other
    certificates than the system's.
    """
    options = parse_qs(folder.url.partition("?")[2])
    if scheme_of(folder.url) != "s3" or any(name.startswith("tls_") for name in options) or _may_use_profile():
        return None
    from obstore.store import S3Store

    region, waiting = folder.filesystem.region, timedelta(seconds=stall_seconds)
    return SingleRequestReader(
        S3Store(
            folder.path.partition("/")[0],
            config={"region": region, "endpoint": _endpoint(options, region), "virtual_hosted_style_request": False},
            client_options={"allow_http": True, "read_timeout": waiting, "timeout": _LONGEST},
            retry_config={"max_retries": _RETRIES, "retry_timeout": waiting},
        )
    )


def _endpoint(options: dict[str, list[str]], region: str) -> str:
    """Return the server's URL, as pyarrow takes it from a URL's options or from the environment."""
    given = options.get("endpoint_override") or [os.environ[name] for name in _ENDPOINTS if os.environ.get(name)]
    endpoint = given[0] if given else f"s3.{region}.amazonaws.com"
    return endpoint if scheme_of(endpoint) else f"{options.get('scheme', ['https'])[0]}://{endpoint}"


def _may_use_profile() -> bool:
    """Return whether pyarrow may find its credentials where the other library does not look.

    Both look at the environment first, and at the machine's role, which may be given by a web identity, last; pyarrow
    looks for a profile between them.
    """
    if all(os.environ.get(name) for name in _KEYS):
        return False
    if os.environ.get("AWS_PROFILE") or os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return True
    return any(os.path.exists(os.environ.get(name) or os.path.expanduser(file)) for name, file in _PROFILES.items())
