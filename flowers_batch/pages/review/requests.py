"""The values in requests of the review page, checked: their types, their numbers and their sizes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.requests import Request

from flowers_batch.classifier.chosen import CHOSEN, VIEW
from flowers_batch.errors import InputError
from flowers_batch.pages.review.views import MAX_ROWS

_MAX_BODY_BYTES = 4 << 20  # more than the rows of a view
_BODY_SECONDS = 30  # for it to arrive
_MAX_DIGITS = 18  # of a number in an address


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        InputError: It is too large, or takes too long.
    """
    content = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > _MAX_BODY_BYTES:
                    raise InputError("The request is too large: select fewer photos.")
    except TimeoutError:
        raise InputError(f"The request took more than {_BODY_SECONDS} s to arrive: try again.") from None
    return content


def json_object(content: bytes) -> dict[str, Any]:
    """Return a request's body, which must be a JSON object; empty if there is no body.

    Raises:
        InputError: It is something else.
    """
    try:
        body = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InputError("The request's body must be a JSON object.")
    return body


def rows_in(body: dict[str, Any]) -> list[int]:
    """Return the rows that a request names.

    Raises:
        InputError: They are none, or too many.
    """
    rows = body.get("rows")
    if not isinstance(rows, list) or not rows or not all(type(row) is int for row in rows):
        raise InputError("`rows` must be a list of integers, at least one.")
    if len(rows) > MAX_ROWS:
        raise InputError(f"At most {MAX_ROWS:,} photos are labelled at once. Received: {len(rows):,}.")
    return rows


def labels_in(body: dict[str, Any], count: int) -> list[str | None]:
    """Return the label of each of `count` photos: the same for all, or one per photo.

    Raises:
        InputError: They are something else.
    """
    labels = body.get("labels")
    if not isinstance(labels, list):
        labels = [labels] * count
    if len(labels) != count or not all(label is None or isinstance(label, str) for label in labels):
        raise InputError("`labels` must be text: one label for all photos, or one per photo.")
    return labels


def chosen_in(body: dict[str, Any], count: int) -> list[str]:
    """Return how each of `count` photos was chosen: the same for all, or one word per photo; in a view by default.

    Raises:
        InputError: They are something else.
    """
    chosen = body.get("chosen", VIEW)
    if not isinstance(chosen, list):
        chosen = [chosen] * count
    if len(chosen) != count or not all(way in CHOSEN for way in chosen):
        raise InputError(f"`chosen` must be one of {', '.join(CHOSEN)}: for all photos, or one per photo.")
    return chosen


def integer_in(body: dict[str, Any], name: str, default: int | None = None) -> int:
    """Return a number of a request.

    Raises:
        InputError: It is no integer.
    """
    value = body.get(name, default)
    if type(value) is not int:
        raise InputError(f"`{name}` must be an integer.")
    return value


def number_in(text: str, name: str) -> int:
    """Return a number of an address.

    Raises:
        InputError: It is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise InputError(f"`{name}` must be a number.")
    return int(text)
