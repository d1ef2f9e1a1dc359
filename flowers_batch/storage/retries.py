"""Retries of reads and writes whose errors may be transient."""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
RETRY_SECONDS = (0.1, 0.5, 2.0)  # waited before each retry
PERMANENT_ERRNOS = (  # a retry would fail identically
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENXIO,  # a socket
)
# Errors of stores have no number, and neither have those of broken Parquet files, which are permanent.
_STORE_ERROR = re.compile("AWS Error|google::cloud|Azure|HTTP|connect|time.?out", re.IGNORECASE)
_REFUSED = "ACCESS_DENIED"


def with_retries(act: Callable[[], T]) -> T:
    """Return the result of a function that reads or writes files; retry it if its error may be transient.

    Raises:
        OSError: As the function raised it, at once or after the last retry.
    """
    for seconds in RETRY_SECONDS:
        try:
            return act()
        except OSError as error:
            if not _is_retryable(error):
                raise
        time.sleep(seconds)
    return act()


def _is_retryable(error: OSError) -> bool:
    if error.errno is not None:
        return error.errno not in PERMANENT_ERRNOS
    return is_store_error(error) and _REFUSED not in str(error)


def is_store_error(error: Exception) -> bool:
    """Return whether an object store, or the way to it, failed."""
    return getattr(error, "errno", None) is None and bool(_STORE_ERROR.search(str(error)))
