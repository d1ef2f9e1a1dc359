"""What a listing left out, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from flowers_batch.sources.images import is_image
from flowers_batch.sources.skipping import Skipping

OTHERS = "others"  # endings beyond the most frequent ones
_MAX_ENDINGS, _ENDINGS_KEPT = 1000, 20
_MAX_ENDING = 16  # characters; what is longer is part of a sentence
_EXAMPLES = 5
_EXAMPLES_SHAPE = {"count": int, "first": [str]}
LEFT_OUT_SHAPE = {  # of `LeftOut.to_json`, as `json_values.check_shape` takes it; version 0.1 wrote `ignored` alone
    "ignored": int,
    "ignored_endings?": {str: int},
    "skipped?": {str: int},
    "skipped_at_least?": [str],
    "loops?": _EXAMPLES_SHAPE,
    "broken_links?": _EXAMPLES_SHAPE,
    "nameless_folders?": _EXAMPLES_SHAPE,
}


@dataclass
class Examples:
    """How many names there are, and the first few.

    Attributes:
        count: How many.
        first: At most five of them.
    """

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count a name."""
        self.count += 1
        if len(self.first) < _EXAMPLES:
            self.first.append(name)


@dataclass
class LeftOut:
    """What a listing left out. Its size does not grow with the archive.

    Attributes:
        skipped: Photos by the kind as which `Skipping` leaves them out.
        at_least: Kinds of which there may be more photos than were counted: a snapshot may be as large as the archive.
        endings: Files that are not images, by the ending of their names in lower case; "" without one.
        loops: Links to a folder that contains them, which are not followed.
        broken_links: Links that lead nowhere, and are not named like images.
        nameless_folders: Prefixes of keys in a store that go on with another slash, which cannot be opened.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    at_least: set[str] = field(default_factory=set)
    endings: Counter[str] = field(default_factory=Counter)
    loops: Examples = field(default_factory=Examples)
    broken_links: Examples = field(default_factory=Examples)
    nameless_folders: Examples = field(default_factory=Examples)

    @property
    def ignored(self) -> int:
        """How many files are not images by their names."""
        return self.endings.total()

    def takes(self, path: bytes, kind: str | None) -> bool:
        """Return whether a file is listed: it is an image by its name, and not skipped. If not, count it.

        Args:
            path: Below the root.
            kind: The kind under which `Skipping` leaves it out; None if it does not. System files that are no images
                count nowhere.
        """
        if not is_image(path):
            if kind is None:
                self._ignore(path)
            return False
        if kind is not None:
            self.skipped[kind] += 1
        return kind is None

    def _ignore(self, path: bytes) -> None:
        ending = _ending_of(path)
        is_counted = ending in self.endings or len(self.endings) < _MAX_ENDINGS
        self.endings[ending if is_counted else OTHERS] += 1

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON: kinds and endings with the most files first, and rare endings as one."""
        named = ((ending, count) for ending, count in _largest_first(self.endings) if ending != OTHERS)
        kept = dict(islice(named, _ENDINGS_KEPT))
        if others := self.ignored - sum(kept.values()):
            kept[OTHERS] = others
        return {
            "ignored": self.ignored,
            "ignored_endings": kept,
            "skipped": dict(_largest_first(self.skipped)),
            "skipped_at_least": sorted(self.at_least),
            "loops": vars(self.loops),
            "broken_links": vars(self.broken_links),
            "nameless_folders": vars(self.nameless_folders),
        }


def start_counting(skipping: Skipping) -> LeftOut:
    """Return the counts of a listing that begins: what the user excludes is named even if that leaves out nothing."""
    return LeftOut(Counter(dict.fromkeys(skipping.exclude_kinds, 0)))


def left_out_from_json(values: Mapping[str, Any]) -> LeftOut:
    """Read what `LeftOut.to_json` returned. Version 0.1 counted what it ignored, and nothing else."""
    endings = values.get("ignored_endings", {OTHERS: values["ignored"]} if values["ignored"] else {})
    return LeftOut(
        Counter(values.get("skipped", {})),
        set(values.get("skipped_at_least", ())),
        Counter(endings),
        _examples_from_json(values.get("loops", {})),
        _examples_from_json(values.get("broken_links", {})),
        _examples_from_json(values.get("nameless_folders", {})),
    )


def _examples_from_json(values: Mapping[str, Any]) -> Examples:
    return Examples(values.get("count", 0), list(values.get("first", ())))


def _largest_first(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))  # a disk lists names in any order


def _ending_of(path: bytes) -> str:
    """Return a name's ending with its dot, such as `.mov`; "" if it has none."""
    stem, dot, ending = path.rpartition(b"/")[2].rpartition(b".")
    text = ending.decode("utf-8", "replace").lower()
    is_ending = stem and dot and 0 < len(text) <= _MAX_ENDING and text.isprintable() and " " not in text
    return f".{text}" if is_ending else ""
