"""Names of files and classes as text that a person can see."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TextIO

# Control characters, marks of direction and joining, fillers, tags and halves of characters: invisible, or reordering
# their neighbours.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e007f]"
)
_MAX_CHARACTERS = 120


def visible(text: str) -> str:
    r"""Return a name with its invisible characters spelt out, as `\u202e`."""
    return _INVISIBLE.sub(_spelt_out, text)


def _spelt_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible_lines(text: str) -> str:
    """Return text of several lines as `visible` does, with its line breaks."""
    return joined_visibly(text.split("\n"))


def joined_visibly(lines: Iterable[str]) -> str:
    """Return lines as one text; a line break in the name of a photo or a class begins no line."""
    return "\n".join(map(visible, lines))


def shortened(text: str) -> str:
    """Return a name as `visible` does, without its middle if it is long."""
    text = visible(text)
    if len(text) <= _MAX_CHARACTERS:
        return text
    return f"{text[: _MAX_CHARACTERS // 2]}…{text[-_MAX_CHARACTERS // 2 :]}"


class VisibleStream:
    """A text stream on which line breaks alone control the terminal, whoever prints: libraries and tracebacks too.

    Attributes:
        unfiltered: The stream behind it, for a program's own control sequences.
    """

    def __init__(self, stream: TextIO):
        self.unfiltered = stream

    def write(self, text: str) -> int:
        """Write text as `visible_lines` returns it."""
        self.unfiltered.write(visible_lines(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unfiltered, name)


def unfiltered(stream: TextIO) -> TextIO:
    """Return a stream that control sequences may be written to."""
    return stream.unfiltered if isinstance(stream, VisibleStream) else stream
