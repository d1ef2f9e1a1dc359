"""The strings and numbers of a pickle: views of the file, decoded when they are used, in bounded time and memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_MAX_NAME_BYTES = 100  # of a layer, a type or a module
_MAX_DIGITS = 20
_PIECE_BYTES = 1 << 20  # decoded at once


class PickleError(ValueError):
    """A pickle holds something other than arrays of floating-point numbers, or is damaged."""


@dataclass(frozen=True)
class EncodedText:
    """Text that is not decoded yet, because it may be the numbers of an array.

    Attributes:
        view: Its bytes.
        encoding: `utf-8`, `raw_unicode_escape`, or `string_escape` for a string in Python 2's notation, with quotes.
    """

    view: memoryview
    encoding: str

    def to_bytes(self, count: int) -> bytearray:
        """Return the bytes that are stored as text, one per character.

        Args:
            count: The number of bytes that there should be.

        Raises:
            PickleError: There are fewer or more bytes, or the text is damaged.
        """
        result = bytearray()
        try:
            for piece in self._pieces():
                result += piece
                if len(result) > count:
                    break
        except ValueError:
            raise PickleError("it has a string that is damaged") from None
        if len(result) != count:
            raise PickleError("the shape of an array does not fit its numbers")
        return result

    def _pieces(self) -> Iterator[bytes]:
        if self.encoding == "string_escape":
            yield codecs.escape_decode(self.view[1:-1])[0]
            return
        decoder = codecs.getincrementaldecoder(self.encoding)()
        for start in range(0, len(self.view), _PIECE_BYTES):
            piece = self.view[start : start + _PIECE_BYTES]
            yield decoder.decode(bytes(piece), final=start + _PIECE_BYTES >= len(self.view)).encode("latin1")


def text_of(value: Any) -> str:
    """Return a short string of a pickle (text, or Python 2's bytes).

    Raises:
        PickleError: It is not a string, or too long for the name of a layer, a type or a module.
    """
    view = value.view if isinstance(value, EncodedText) else value
    if not isinstance(view, memoryview):
        raise PickleError("it has something else where a name should be")
    if len(view) > _MAX_NAME_BYTES:
        raise PickleError(f"it has a name of {len(view)} bytes")
    if not isinstance(value, EncodedText):
        return bytes(view).decode("latin1")
    try:
        return b"".join(value._pieces()).decode("latin1")
    except ValueError:
        raise PickleError("it has a name that is no text") from None


def line_at(data: memoryview, position: int) -> memoryview:
    """Return the line that begins at a position, without its end.

    Raises:
        PickleError: It has no end.
    """
    end = data.obj.find(b"\n", position)  # type: ignore[attr-defined]  # of the mmap or bytes: a view cannot search
    if end < 0:
        raise PickleError("its pickle is cut off")
    return data[position:end]


def int_of_line(line: memoryview) -> int:
    """Return the number in a line, as protocol 0 writes it (`12L`; 00 and 01 stand for False and True).

    Raises:
        PickleError: It is not a number, or too long.
    """
    digits = bytes(line[: _MAX_DIGITS + 1]).removesuffix(b"L")
    if len(line) > _MAX_DIGITS or not digits.removeprefix(b"-").isdigit():
        raise PickleError("it has something else where a number should be")
    return int(digits)


def int_of_bytes(view: memoryview, signed: bool = False) -> int:
    """Return the number in a few bytes, little-endian."""
    return int.from_bytes(view, "little", signed=signed)
