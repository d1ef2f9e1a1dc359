"""Names of files and classes as text that a person can see."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Control characters, and marks of direction and joining: invisible, or reordering their neighbours.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_MAX_CHARACTERS = 120


def visible(text: str) -> str:
    r"""Return a name with its invisible characters spelt out, as `\u202e`."""
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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
