"""Why bytes are not a picture that can be decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from flowers_batch.errors import first_line

# What the libraries say of files that are not broken.
_OUT_OF_MEMORY = re.compile("out of memory|allocating .* failed", re.IGNORECASE)
_TOO_LARGE = re.compile("too large|too much memory|exceed", re.IGNORECASE)
_UNSUPPORTED = re.compile("cannot handle|unknown pixel mode|(not|un)( yet)? ?(supported|implemented)", re.IGNORECASE)


class DecodeError(Exception):
    """Bytes that are not a picture that can be decoded.

    Attributes:
        reason: `not_an_image`, `truncated`, `too_large` or `unsupported`.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


def too_many(limit: int, parts: str) -> DecodeError:
    """Return the error for a file that has more parts than a photo, and would take far more time."""
    return DecodeError("unsupported", f"It has more than {limit} {parts}, far more than a photo.")


@contextmanager
def explain_errors() -> Iterator[None]:
    """Turn whatever the libraries raise into a `DecodeError`: broken files cause nearly every kind of exception."""
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:
        message = first_line(error)
        # OpenCV raises for lack of memory only.
        if isinstance(error, MemoryError | cv2.error) or _OUT_OF_MEMORY.search(message):
            raise DecodeError("too_large", "It does not fit in memory.") from MemoryError(message)
        if _TOO_LARGE.search(message):
            raise DecodeError("too_large", message) from None
        if _UNSUPPORTED.search(message) or isinstance(error.__cause__, KeyError):  # a compression without a name
            raise DecodeError("unsupported", f"Images of this kind are not supported: {message}") from None
        raise DecodeError("truncated", f"The image is broken or cut short: {message}") from None
