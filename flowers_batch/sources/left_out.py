"""What a listing left out, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OTHERS = "others"  # endings beyond the most frequent ones
_MAX_ENDINGS, _ENDINGS_SHOWN = 1000, 20
_MAX_ENDING = 16  # characters; what is longer is part of a sentence


@dataclass
class LeftOut:
    """What a listing left out. Its size does not grow with the archive.

    Attributes:
        skipped: Photos by the kind as which `Skipping` leaves them out.
        at_least: The kinds of which there may be more photos than counted, since folders may be without end.
        endings: Files that are not images, by the ending of their names in lower case; "" without one.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    at_least: set[str] = field(default_factory=set)
    endings: Counter[str] = field(default_factory=Counter)

    @property
    def ignored(self) -> int:
        """How many files are not images by their names."""
        return self.endings.total()

    def skip(self, kind: str, photos: int = 1) -> None:
        """Count photos that `Skipping` leaves out."""
        self.skipped[kind] += photos

    def ignore(self, name: bytes) -> None:
        """Count a file that is not an image by its name."""
        ending = _ending_of(name)
        known = ending in self.endings or len(self.endings) < _MAX_ENDINGS
        self.endings[ending if known else OTHERS] += 1

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON: the kinds and endings with the most files first, and the rarer endings as one."""
        shown = Counter(dict(self.endings.most_common(_ENDINGS_SHOWN)))
        if others := self.ignored - shown.total():
            shown[OTHERS] += others
        return {
            "ignored": self.ignored,
            "ignored_endings": dict(shown),
            "skipped": dict(self.skipped.most_common()),
            "skipped_at_least": sorted(self.at_least),
        }


def left_out_from_json(values: Mapping[str, Any]) -> LeftOut:
    """Read what `to_json` returned; what version 0.1 wrote has no endings, and nothing that was skipped."""
    endings = Counter(values.get("ignored_endings", {OTHERS: values["ignored"]} if values["ignored"] else {}))
    return LeftOut(Counter(values.get("skipped", {})), set(values.get("skipped_at_least", ())), endings)


def _ending_of(name: bytes) -> str:
    """Return a name's ending with its dot, such as `.mov`; "" if it has none."""
    stem, dot, ending = name.rpartition(b"/")[2].rpartition(b".")
    text = ending.decode("utf-8", "replace").lower()
    is_ending = stem and dot and 0 < len(text) <= _MAX_ENDING and text.isprintable() and " " not in text
    return f".{text}" if is_ending else ""
