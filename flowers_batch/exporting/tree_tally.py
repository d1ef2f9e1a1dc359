"""What `organize` counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flowers_batch.exporting.labelled_photos import LabelledPhoto
from flowers_batch.exporting.tree_disk import State
from flowers_batch.exporting.tree_plan import Planned
from flowers_batch.exporting.tree_record import Entry

NEW, MOVED, REPLACED, UNCHANGED, REMOVED, KEPT = _CHANGES = (
    *("new", "moved", "replaced", "unchanged", "removed", "kept"),
)
UNKNOWN, FAILED, MISSING = _LEFT_OUT = ("unknown", "failed", "missing")
_EXAMPLES = 5  # of each kind


class Tally:
    """Counts photos and entries.

    Attributes:
        left_out: Photos that are not to be in the tree, by why.
    """

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self._all = 0
        self._classes: Counter[str] = Counter()
        self._entries: Counter[str] = Counter()
        self._examples: dict[str, list[dict[str, str]]] = {}

    @property
    def to_make(self) -> int:
        """How many entries are not there yet."""
        return self._entries[NEW] + self._entries[MOVED] + self._entries[REPLACED]

    def counted(self, photos: Iterable[LabelledPhoto]) -> Iterator[LabelledPhoto]:
        """Count all photos: those that are then neither in the tree nor left out are missing."""
        for photo in photos:
            self._all += 1
            yield photo

    def add_photo(self, label: str, planned: Sequence[Planned]) -> None:
        """Count a photo and its entries."""
        self._classes[label] += 1
        for each in planned:
            if each.state == State.ABSENT:
                self._count(MOVED if each.has_moved else NEW, each.entry)
            else:
                self._count(UNCHANGED if each.state == State.RIGHT else REPLACED, each.entry)

    def add_unwanted(self, entry: Entry, state: State, is_elsewhere: bool) -> None:
        """Count an entry that is no longer wanted.

        Args:
            entry: The entry.
            state: `OWN` if it is removed, `FOREIGN` if it is kept, `ABSENT` if it is not there.
            is_elsewhere: Whether another entry shows its photo now.
        """
        if state == State.FOREIGN:
            self._count(KEPT, entry)
        elif state == State.OWN and not is_elsewhere:
            self._count(REMOVED, entry)

    def _count(self, change: str, entry: Entry) -> None:
        self._entries[change] += 1
        examples = self._examples.setdefault(change, [])
        if len(examples) < _EXAMPLES:
            examples.append({"path": entry.path, "entry": entry.name.decode(errors="backslashreplace")})

    @property
    def missing(self) -> int:
        """How many photos were to be shown, and do not exist."""
        return self._all - self.shown - self.left_out.total()

    @property
    def shown(self) -> int:
        """How many photos are shown."""
        return self._classes.total()

    def to_json(self) -> dict[str, Any]:
        """Return all counts as `organize` returns them."""
        left_out = {**self.left_out, MISSING: self.missing}
        return {
            "photos": self.shown,
            "classes": dict(sorted(self._classes.items())),
            **{change: self._entries[change] for change in _CHANGES},
            **{reason: left_out.get(reason, 0) for reason in _LEFT_OUT},
            "examples": self._examples,
        }
