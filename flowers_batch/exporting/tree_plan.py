"""What is to be in a tree, compared with what earlier runs made there: in a scratch database, for trees of any size."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from flowers_batch.errors import InputError
from flowers_batch.exporting.shown_files import ShownFile
from flowers_batch.exporting.tree_disk import State, TreeDisk
from flowers_batch.exporting.tree_kinds import Kind
from flowers_batch.exporting.tree_names import name_key, tagged, tags
from flowers_batch.exporting.tree_record import Entry
from flowers_batch.metadata.sidecars import sidecars_of
from flowers_batch.sources.pairs import own_name, pair_key

_ENTRY = "name, path, target, size, mtime_ns"
_TABLES = f"""
CREATE TABLE made (key BLOB, stem BLOB, photo, {_ENTRY});
CREATE INDEX made_by_key ON made (key);
CREATE INDEX made_by_stem ON made (stem);
CREATE INDEX made_by_path ON made (path);
CREATE TABLE kept ({_ENTRY});
CREATE TABLE wanted (key BLOB PRIMARY KEY, stem BLOB, photo, {_ENTRY}, folder, place, state) WITHOUT ROWID;
CREATE INDEX wanted_by_stem ON wanted (stem);
CREATE INDEX wanted_by_name ON wanted (name);
"""


class FileInTree(NamedTuple):
    """A file that is to be in a tree.

    Attributes:
        file: A photo's, or one of its sidecars.
        photo: The name of the photo's file.
        sidecar: Its position in `sidecars_of` the photo; None for the photo.
    """

    file: ShownFile
    photo: str
    sidecar: int | None = None

    def name(self, tag: str) -> str:
        """Return its name in the tree, with a tag."""
        photo = tagged(self.photo, tag)
        return photo if self.sidecar is None else sidecars_of(photo)[self.sidecar]


class Planned(NamedTuple):
    """An entry that is to be in a tree.

    Attributes:
        entry: The entry.
        place: The file that it shows.
        state: What has its name now.
        has_moved: Whether an entry of another name showed the file before.
    """

    entry: Entry
    place: bytes
    state: State
    has_moved: bool = False


class Plan:
    """What is to be in a tree.

    A photo keeps the name that it has in its class's folder. A name is free if it is on all file systems, and if no
    other photo has it with another suffix: the two would look like a pair.

    Args:
        database: An empty one.
        disk: The tree.
        kind: How it shows photos.
        folders: `name_key` of the classes' folders.
        made: What earlier runs made.
    """

    def __init__(
        self, database: sqlite3.Connection, disk: TreeDisk, kind: Kind, folders: Set[bytes], made: Iterable[Entry]
    ):
        self._database, self._disk, self._kind, self._folders = database, disk, kind, folders
        database.executescript(_TABLES)
        rows = ((_key(entry), *_stem_and_photo(entry), *entry) for entry in made)
        self._has_made = database.executemany("INSERT INTO made VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows).rowcount > 0

    def add(self, folder: str, files: Sequence[FileInTree]) -> list[Planned]:
        """Add a photo.

        Args:
            folder: Its class's.
            files: Its files.

        Returns:
            Its entries; none if its files do not exist.

        Raises:
            InputError: Entries that this program did not make have all names that it could have.
        """
        before = self._names_before(files)
        for tag in self._tags(folder, files, before):
            planned = self._with_tag(folder, files, tag, before)
            if planned is not None:
                self._insert(planned)
                return planned
        raise InputError(
            f"{folder}/{files[0].name('')} cannot be in the tree, since entries that `organize` did not make have all "
            "names that it could have: move them away."
        )

    def all_made(self) -> Iterator[Entry]:
        """Yield what earlier runs have made, and what this one will, or may, make."""
        return self._entries(f"SELECT {_ENTRY} FROM made UNION SELECT {_ENTRY} FROM wanted")

    def remaining(self) -> Iterator[Entry]:
        """Yield what this program has made that is in the tree at the end."""
        return self._entries(f"SELECT {_ENTRY} FROM wanted UNION SELECT {_ENTRY} FROM kept")

    def to_make(self) -> Iterator[Planned]:
        """Yield the entries that are not there yet, folder by folder."""
        query = f"SELECT {_ENTRY}, place, state FROM wanted WHERE state != ? ORDER BY folder, name"
        for *entry, place, state in self._database.execute(query, (State.RIGHT,)):
            yield Planned(Entry(*entry), place, State(state))

    def made_as(self, entry: Entry) -> list[Entry]:
        """Return what earlier runs made with the name of an entry, or may have made."""
        if not self._has_made:
            return []
        return list(self._entries(f"SELECT {_ENTRY} FROM made WHERE key = ?", _key(entry)))

    def unwanted(self) -> Iterator[tuple[list[Entry], bool]]:
        """Yield what earlier runs made with each name that is no longer wanted, and whether its photo is elsewhere."""
        query = f"""SELECT EXISTS (SELECT 1 FROM wanted AS other WHERE other.path = made.path), {_ENTRY}
            FROM made WHERE name NOT IN (SELECT name FROM wanted) ORDER BY name"""
        self._database.execute("CREATE INDEX IF NOT EXISTS wanted_by_path ON wanted (path)")
        for _, rows in groupby(self._database.execute(query), key=itemgetter(1)):
            found = list(rows)
            yield [Entry(*row[1:]) for row in found], any(row[0] for row in found)

    def has_unwanted(self) -> bool:
        """Return whether earlier runs made, or may have made, entries that are no longer wanted."""
        query = "SELECT 1 FROM made WHERE name NOT IN (SELECT name FROM wanted) LIMIT 1"
        return self._database.execute(query).fetchone() is not None

    def keep(self, entries: Iterable[Entry]) -> None:
        """Keep entries that are no longer wanted."""
        self._database.executemany("INSERT INTO kept VALUES (?, ?, ?, ?, ?)", entries)

    def _entries(self, query: str, *values: bytes) -> Iterator[Entry]:
        return (Entry(*row) for row in self._database.execute(query, values))

    def _names_before(self, files: Sequence[FileInTree]) -> Mapping[str, Set[bytes]]:
        """Return the names of the entries that earlier runs made of each file."""
        if not self._has_made:
            return {}
        query = "SELECT name FROM made WHERE path = ?"
        paths = [each.file.path for each in files]
        return {path: {name for (name,) in self._database.execute(query, (path,))} for path in paths}

    def _tags(self, folder: str, files: Sequence[FileInTree], before: Mapping[str, Set[bytes]]) -> Iterable[str]:
        """Return the tags that a photo's names may have, first the one that they have now."""
        found = tags([each.file.path for each in files if each.sidecar is None])
        if not any(before.values()):
            return found

        def agreement(tag: str) -> int:
            return sum(_name(folder, each, tag) in before[each.file.path] for each in files)

        return sorted(found, key=agreement, reverse=True)

    def _with_tag(
        self, folder: str, files: Sequence[FileInTree], tag: str, before: Mapping[str, Set[bytes]]
    ) -> list[Planned] | None:
        """Return the entries of a photo whose names have a tag; None if one of these is not free."""
        planned: dict[bytes, Planned] = {}
        for each in files:
            entry = self._kind.entry(_name(folder, each, tag), each.file)
            if entry is None or (key := _key(entry)) in planned:  # photo.jpg.xmp and photo.jpg.XMP
                continue
            made = self.made_as(entry)
            if key in self._folders or self._is_wanted(key) or any(other.path != entry.path for other in made):
                return None
            state = self._disk.state(entry, each.file, made)
            if state == State.FOREIGN and each.sidecar is not None:
                continue  # another program's, which wrote it beside the link
            if state == State.FOREIGN or self._is_of_another_photo(entry):
                return None
            if any(other.name != entry.name for other in made):
                state = State.ABSENT  # the entry whose name has another case is removed first
            has_moved = state == State.ABSENT and bool(before.get(entry.path, set()) - {entry.name})
            planned[key] = Planned(entry, each.file.where, state, has_moved)
        return list(planned.values())

    def _is_wanted(self, key: bytes) -> bool:
        return self._database.execute("SELECT 1 FROM wanted WHERE key = ?", (key,)).fetchone() is not None

    def _is_of_another_photo(self, entry: Entry) -> bool:
        """Return whether an entry would look as if it were of a pair with another photo's."""
        stem, photo = _stem_and_photo(entry)
        query = " UNION ALL ".join(
            f"SELECT 1 FROM {table} WHERE stem = ? AND photo != ?" for table in ("wanted", "made")
        )
        return self._database.execute(query, (stem, photo) * 2).fetchone() is not None

    def _insert(self, planned: Iterable[Planned]) -> None:
        rows = (
            (
                _key(each.entry),
                *_stem_and_photo(each.entry),
                *each.entry,
                os.path.dirname(each.entry.name),
                each.place,
                each.state,
            )
            for each in planned
        )
        self._database.executemany("INSERT INTO wanted VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _name(folder: str, file: FileInTree, tag: str) -> bytes:
    return os.fsencode(f"{folder}/{file.name(tag)}")


def _stem_and_photo(entry: Entry) -> tuple[bytes | None, str | None]:
    """Return the name of an entry as far as the files of a pair have it in common, and `pair_key`; of no sidecar."""
    if entry.path[-4:].lower() == ".xmp":
        return None, None
    folder, name = os.path.split(os.fsdecode(entry.name))
    return name_key(f"{folder}/{own_name(name)}"), pair_key(entry.path)


def _key(entry: Entry) -> bytes:
    return name_key(os.fsdecode(entry.name))
