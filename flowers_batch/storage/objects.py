"""Whole objects of stores: by one request where that is possible, and never waiting for ever."""

from __future__ import annotations

import errno
from collections.abc import Callable
from io import BytesIO
from queue import Empty, SimpleQueue
from threading import Event, Thread

import pyarrow as pa

from flowers_batch.storage.folder import Folder
from flowers_batch.storage.single_requests import single_request_reader

STALL_SECONDS = 15.0  # without a byte, after which a read is given up; the clients wait for minutes, or for ever


def read_object(folder: Folder, name: str, check_size: Callable[[int], None]) -> bytes:
    """Return the bytes of an object, read once: of S3 mostly, and of Google always, by one request.

    Args:
        folder: A folder in a store.
        name: The object's name in it.
        check_size: Called with its size, or with what there is of it so far; it raises an exception if that is too
            much.

    Raises:
        OSError: It does not exist, or cannot be read; `TimeoutError` if the store has sent nothing for `STALL_SECONDS`.
    """
    reader = single_request_reader(folder, STALL_SECONDS)
    try:
        content = reader.read(folder.at(name).partition("/")[2], check_size) if reader else None
        return _received(folder, name, check_size) if content is None else content
    except (TimeoutError, Empty):
        message = f"The store has sent nothing for {STALL_SECONDS:g} seconds"
        raise TimeoutError(errno.ETIMEDOUT, message) from None


def _received(folder: Folder, name: str, check_size: Callable[[int], None]) -> bytes:
    """Return an object's bytes as pyarrow reads them, in a thread that is left alone if it stalls.

    Raises:
        Empty: It stalls.
    """
    blocks: SimpleQueue[bytes | BaseException] = SimpleQueue()
    given_up = Event()

    def read() -> None:
        try:
            with _open(folder, name, check_size) as file:
                while not given_up.is_set():
                    blocks.put(block := file.read(folder.block_bytes))
                    if not block:
                        return
        except BaseException as error:
            blocks.put(error)

    Thread(target=read, name="read-object", daemon=True).start()
    content = BytesIO()  # which gives its memory away without copying it
    try:
        while block := blocks.get(timeout=STALL_SECONDS):
            if isinstance(block, BaseException):
                raise block
            content.write(block)
            check_size(content.tell())
    finally:
        given_up.set()
    return content.getvalue()


def _open(folder: Folder, name: str, check_size: Callable[[int], None]) -> pa.NativeFile:
    if folder.filesystem.type_name == "gcs":  # its streams, unlike its files, are opened without asking for the size
        return folder.filesystem.open_input_stream(folder.at(name))
    file = folder.open(name)
    check_size(file.size())
    return file
