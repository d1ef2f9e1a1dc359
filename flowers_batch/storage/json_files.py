"""JSON files in a folder: bounded when they are read, published atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flowers_batch.errors import InputError
from flowers_batch.json_values import parse_json
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.io_errors import reading_error
from flowers_batch.storage.retries import with_retries

_MAX_BYTES = 16 << 20  # a value takes some twenty times the memory of its text


def read_json(folder: Folder, name: str, max_bytes: int = _MAX_BYTES) -> Any:
    """Return the content of a JSON file.

    Args:
        folder: Its folder.
        name: The file.
        max_bytes: A larger one is not read.

    Raises:
        FileNotFoundError: It does not exist.
        InputError: It is not JSON, or is too large.
        RunError: It cannot be read.
    """
    try:
        with with_retries(lambda: folder.open(name)) as file:
            content = file.read(max_bytes + 1)
    except NotADirectoryError as error:  # a file stands in place of the folder
        raise FileNotFoundError(*error.args) from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise reading_error(folder.url_of(name), error) from error
    try:
        if len(content) > max_bytes:
            raise ValueError("too large")
        return parse_json(content)
    except ValueError:
        raise InputError(f"{folder.url_of(name)} is not a JSON file: restore it, or begin in a new folder.") from None


def write_json(folder: Folder, name: str, value: Any) -> None:
    """Publish a JSON file."""
    with folder.publish(name) as scratch:
        Path(scratch).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
