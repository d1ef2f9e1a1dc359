"""I/O errors as sentences that name what failed: reading one thing, or writing another."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa

from flowers_batch.errors import FlowersError, InputError, RunError
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.retries import is_store_error

T = TypeVar("T")
_WRITE_ACCESS = "make room or give write access"


def is_io_error(error: BaseException) -> bool:
    """Return whether a disk or a store failed, which says nothing about a file's content.

    pyarrow raises an `OSError` without a number for Parquet files that are broken, too.
    """
    return isinstance(error, OSError) and (error.errno is not None or is_store_error(error))


def raise_io_error(url: str, error: Exception) -> None:
    """Raise the error of a file that cannot be read if a disk or a store failed; return if its content is to blame."""
    if is_io_error(error):
        raise reading_error(url, error) from error


def reading_error(url: str, error: Exception) -> FlowersError:
    """Return the error of a file or folder that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"There is no {url}: check its name.")
    is_remote = is_store_error(error)
    cause = "connection" if is_remote else "disk"
    return RunError(
        f"{url} cannot be read ({reason_of(error)}): check the {cause} and your permissions, and run the same command "
        "again."
    )


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Explain I/O errors of the block as those of reading one file or folder.

    Raises:
        InputError: It does not exist.
        RunError: It cannot be read.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise reading_error(url, error) from error


@contextmanager
def writing(url: str, folder: str, remedy: str = _WRITE_ACCESS) -> Iterator[None]:
    """Explain I/O errors of the block as those of writing a file; those of stores and of files elsewhere pass.

    Args:
        url: The file.
        folder: The folder on this machine that the block writes to.
        remedy: What to do.

    Raises:
        RunError: It cannot be written: the disk is full, the folder is read-only.
    """
    try:
        yield
    except _PassedError as passed:
        raise passed.error from None
    except OSError as error:
        if is_store_error(error) or not _is_near(error.filename, folder):
            raise
        raise writing_error(url, error, remedy) from error


@contextmanager
def storing(url: str) -> Iterator[None]:
    """Explain I/O errors of the block, which uploads a file.

    Raises:
        RunError: It cannot be written: the store fails, or refuses it.
    """
    try:
        yield
    except OSError as error:
        remedy = "check the connection and your permissions" if is_store_error(error) else _WRITE_ACCESS
        raise writing_error(url, error, remedy) from error


@contextmanager
def writing_scratch() -> Iterator[None]:
    """Explain I/O errors of the block as those of writing to the temporary folder.

    Raises:
        RunError: It cannot be written.
    """
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise RunError(f"{error.strerror}: set TMPDIR to a folder that can be written.") from None
    with writing(folder, folder, "make room there, or set TMPDIR to another folder"):
        yield


def passing_errors(rows: Iterable[T]) -> Iterator[T]:
    """Yield rows that are made while a file is written; I/O errors of making them pass `writing`."""
    try:
        yield from rows
    except OSError as error:
        raise _PassedError(error) from error


class _PassedError(Exception):
    def __init__(self, error: OSError):
        super().__init__(str(error))
        self.error = error


def writing_error(url: str, error: OSError, remedy: str = _WRITE_ACCESS) -> RunError:
    """Return the error of a file that cannot be written."""
    return RunError(f"{url} cannot be written ({reason_of(error)}): {remedy}, and run the same command again.")


def _is_near(filename: object, folder: str) -> bool:
    """Return whether an error names a file in a folder, or one of the folders above it; or no file at all."""
    if not isinstance(filename, str | bytes):
        return True
    path = os.path.abspath(os.fsdecode(filename))
    return os.path.commonpath([path, folder]) in (path, folder)
