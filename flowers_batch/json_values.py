"""JSON from files that anyone may have written: bounded, and checked against the shape that its reader expects."""

from __future__ import annotations

import json
import math
from typing import Any

# A type: `str`, `bool`, `float` (any finite number) or `int` (a count: 0 to 2^63 - 1); None: null; a tuple: one of
# these shapes, or of these texts; a list of one shape: a list of any length; a dict of names: an object with at least
# these fields, of which those whose name ends in `?` may be missing; `{str: shape}`: an object of any names.
Shape = Any
_LARGEST = 2**63 - 1
_TYPES = {str: "a text", bool: "true or false", int: "a whole number from 0", float: "a number", dict: "an object"}


def parse_json(content: bytes | str) -> Any:
    """Return a JSON value.

    Raises:
        ValueError: It is not JSON; or is nested too deeply, or has a number that JSON does not have, such as NaN.
    """
    try:
        return json.loads(content, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check_shape(value: Any, shape: Shape, name: str = "it") -> None:
    """Check the types of a JSON value, so that its reader can rely on them; unknown fields are ignored.

    Args:
        value: What `parse_json` returned.
        shape: What it must be.
        name: How the error calls it.

    Raises:
        TypeError: It is something else; the text says what.
    """
    if isinstance(shape, tuple):
        _check_any(value, shape, name)
    elif isinstance(shape, dict):
        _check_object(value, shape, name)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise TypeError(f"{name} is not a list")
        for each in value:
            check_shape(each, shape[0], f"a value in {name}")
    elif not _has_type(value, shape):
        raise TypeError(f"{name} is not {_TYPES.get(shape) or (repr(shape) if shape else 'null')}")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _check_any(value: Any, shapes: tuple[Shape, ...], name: str) -> None:
    for shape in shapes:
        try:
            check_shape(value, shape, name)
            return
        except TypeError as error:
            last = error
    raise last


def _check_object(value: Any, shape: dict[Any, Shape], name: str) -> None:
    if not isinstance(value, dict):
        raise TypeError(f"{name} is not an object")
    if str in shape:
        for key, each in value.items():
            check_shape(key, str, f"a name in {name}")
            check_shape(each, shape[str], f"a value in {name}")
        return
    for field, expected in shape.items():
        key = field.removesuffix("?")
        if key in value:
            check_shape(value[key], expected, f"`{key}`")
        elif key == field:
            raise TypeError(f"`{key}` is missing")


def _has_type(value: Any, kind: type | str | None) -> bool:
    if kind is str:
        return isinstance(value, str) and _is_text(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST
    if kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and abs(value) <= _LARGEST and math.isfinite(value)
    return isinstance(value, kind) if isinstance(kind, type) else value == kind


def _is_text(value: str) -> bool:
    """Return whether a text can be a name: JSON has halves of surrogate pairs, and NUL, which no file name has."""
    return "\0" not in value and (value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value))
