"""The format number that files on disk carry, and its check; docs/formats.md is the policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowers_batch.errors import InputError
from flowers_batch.json_values import check_shape

FORMAT = 2  # raised when a file is written that older versions would misread
_KEY = "format"


def with_format(content: dict[str, Any]) -> dict[str, Any]:
    """Return a file's content with the format number that this version writes."""
    return {_KEY: FORMAT} | content


def in_current_format(content: Any, where: str, upgrade: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return a file's content in this version's format, without its number.

    Args:
        content: As it was read: a JSON object. Files of version 0.1 have no format number, and count as format 1.
        where: The file's path or URL, for the error message.
        upgrade: Returns the content of format 1 under this version's names: a function of `formats_0_1`.

    Raises:
        InputError: A newer version wrote the file.
        TypeError: The content is not a JSON object, or its format is not a number.
    """
    if not isinstance(content, dict):
        raise TypeError("not a JSON object")
    rest = {name: value for name, value in content.items() if name != _KEY}
    number = content.get(_KEY, 1)
    check_shape(number, int, "its format")
    if number > FORMAT:
        raise InputError(
            f"{where} has format {number}, and this version of flowers_batch reads formats up to {FORMAT}: install a "
            "newer version."
        )
    if number == FORMAT:
        return rest
    try:
        return upgrade(rest)
    except (AttributeError, KeyError, ValueError) as error:  # it has no such fields, or they are of other types
        raise TypeError(f"not of format {number}: {error}") from None
