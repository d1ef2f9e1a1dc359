"""Why bytes are not a picture that can be decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

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
    """Turn whatever an image library raises for a file's bytes into a `DecodeError`.

    Broken files cause nearly every kind of exception. Nothing but calls of libraries may be in the block: a fault of
    our own is none of the file's.
    """
    try:
        yield
    except DecodeError:
        raise  # it is explained
    except Exception as error:
        message = first_line(error)
        if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(message):
            raise _no_memory() from MemoryError(message)
        if _TOO_LARGE.search(message):
            raise DecodeError("too_large", message) from None
        if _UNSUPPORTED.search(message) or isinstance(error.__cause__, KeyError):  # a compression without a name
            raise DecodeError("unsupported", f"Images of this kind are not supported: {message}") from None
        raise DecodeError("truncated", f"The image is broken or cut short: {message}") from None


@contextmanager
def explain_lack_of_memory() -> Iterator[None]:
    """Turn lack of memory, whatever needs it, into a `DecodeError`, and leave all other errors as they are."""
    try:
        yield
    except MemoryError as error:
        raise _no_memory() from error
    except Exception as error:
        import cv2  # where it has raised an error, it is loaded

        # An exception of C++ has no code.
        if isinstance(error, cv2.error) and (
            getattr(error, "code", None) == cv2.Error.STS_NO_MEM or "bad_alloc" in str(error)
        ):
            raise _no_memory() from MemoryError(first_line(error))
        raise


def _no_memory() -> DecodeError:
    return DecodeError("too_large", "It does not fit in memory.")
