"""Links in tars: which member each leads to. The members are in a scratch database, since there may be millions."""

from __future__ import annotations

import sqlite3
import tarfile
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from flowers_batch.errors import InputError
from flowers_batch.sources.images import is_image, path_text
from flowers_batch.sources.left_out import LeftOut
from flowers_batch.sources.ordering import scratch_database
from flowers_batch.sources.skipping import Skipping

NO_BYTES = -1  # the offset of what is no file, and of a link that leads to none
_MAX_LINKS, _MAX_PATH = 40, 4096  # links that a path may lead through, and its bytes, as on Linux
# What links may lead to: a tar of 40 folders, each with two links to the one before, would have 2^40 photos.
_MAX_ENTRIES, _MAX_ENTRIES_PER_MEMBER = 1_000_000, 100


class Photo(NamedTuple):
    """A member that is listed.

    Attributes:
        path: Its name in the tar.
        size: Its bytes.
        offset: Where they begin; None if they are not contiguous, `NO_BYTES` if there are none.
    """

    path: bytes
    size: int
    offset: int | None


def photo_of(member: tarfile.TarInfo) -> Photo:
    """Return a member that is neither a folder nor a link."""
    path = member_path(member.name)
    if not member.isreg():
        return Photo(path, 0, NO_BYTES)
    return Photo(path, member.size, None if member.issparse() else member.offset_data)


def member_path(name: str) -> bytes:
    """Return a member's name as the tar has it."""
    return name.encode("utf-8", "surrogateescape")


def linked_photos(
    tar: bytes, members: Iterable[tarfile.TarInfo], skipping: Skipping, left_out: LeftOut
) -> Iterator[Photo]:
    """Yield the photos that the links in a tar lead to, by the links' names.

    A hard link leads to the last member of its target's name before it. A symbolic link leads where it would if the tar
    were unpacked, be it through other links; one to a folder gives the photos in it. A path that leads through the same
    folder twice is a loop, and ends there.

    Args:
        tar: The tar's name.
        members: All its members.
        skipping: Which names are left out.
        left_out: Gains the counts of what is left out.

    Raises:
        InputError: They lead to far more than the tar has.
    """
    with scratch_database() as database:
        tree, max_entries = _Tree(database), _MAX_ENTRIES
        for member in members:
            tree.add(member)
            max_entries += _MAX_ENTRIES_PER_MEMBER
        walk = _LinkWalk(tar, tree, skipping, left_out)
        for number, photo in enumerate(chain.from_iterable(map(walk.entries, tree.links())), 1):
            if number > max_entries:
                raise InputError(
                    f"Links in the tar {path_text(tar)} lead to folders with links, and so to more than {max_entries} "
                    "photos and folders: leave such links out of the tar."
                )
            if photo:
                yield photo


class _Node(NamedTuple):
    """A member that is not a folder: a photo, or a symbolic link, which has a target and nothing else."""

    path: bytes
    size: int
    offset: int | None
    target: bytes | None


class _Stretch(NamedTuple):
    """A part of a path that leads through no link: from one folder down to another, or to itself."""

    top: bytes
    bottom: bytes

    def has(self, folder: bytes) -> bool:
        return _is_within(folder, self.top) and _is_within(self.bottom, folder)


class _Entry(NamedTuple):
    """What a walk comes to: under which name, which member, and the folders on the way."""

    path: bytes
    node: _Node
    way: tuple[_Stretch, ...]


class _LinkWalk:
    """A walk from links to photos."""

    def __init__(self, tar: bytes, tree: _Tree, skipping: Skipping, left_out: LeftOut):
        self._tar, self._tree, self._skipping, self._left_out = tar, tree, skipping, left_out

    def entries(self, link: _Node) -> Iterator[Photo | None]:
        """Yield the photo that a link leads to, or those in the folder that it leads to; None for anything else."""
        # What is left of each folder; no recursion, since links to folders may lead to others.
        left = [iter([_Entry(link.path, link, (_Stretch(b"", _parent(_normal(link.path))),))])]
        while left:
            entry = next(left[-1], None)
            if entry is None:
                left.pop()
                continue
            found = None if self._is_in_skipped(entry.path) else self._tree.follow(entry.node)
            if isinstance(found, bytes):
                left.append(self._entries(entry, found))
                yield None
            else:
                yield self._photo(entry.path, found)

    def _photo(self, path: bytes, found: tuple[int, int | None] | None) -> Photo | None:
        """Return what is listed of a link, None if nothing is; `found` is the file that it leads to."""
        kind = self._skipping.kind_within(path)
        if found or is_image(path):
            return Photo(path, *(found or (0, NO_BYTES))) if self._left_out.takes(path, kind) else None
        if kind is None:
            self._left_out.broken_links.add(self._name(path))
        return None

    def _name(self, path: bytes) -> str:
        return path_text(b"%b!%b" % (self._tar, path))

    def _is_in_skipped(self, path: bytes) -> bool:
        return self._skipping.kind_within(_parent(path) + b"/") is not None

    def _entries(self, link: _Entry, folder: bytes) -> Iterator[_Entry]:
        """Yield what is in the folder that a link leads to, and in the folders in it, unless that is a loop."""
        if len(link.way) > _MAX_LINKS or any(stretch.has(folder) for stretch in link.way):
            if self._skipping.kind_within(link.path + b"/") is None:
                self._left_out.loops.add(self._name(link.path))
            return
        on_the_way = {stretch.top for stretch in link.way if _is_within(stretch.top, folder)}
        loops = set()
        for node in self._tree.nodes_in(folder):
            path = link.path + (node.path[len(folder) :] if folder else b"/" + node.path)
            loop = next((top for top in on_the_way if _is_within(node.path, top)), None)
            if loop is None:
                yield _Entry(path, node, (*link.way, _Stretch(folder, _parent(node.path))))
            elif loop not in loops:
                loops.add(loop)
                self._left_out.loops.add(self._name(link.path + loop[len(folder) :]))


class _Tree:
    """The members of a tar by their names, of which the last one counts, and its links in their order."""

    def __init__(self, database: sqlite3.Connection):
        self._database = database
        columns = "size INTEGER, offset INTEGER, target BLOB"
        database.execute(f"CREATE TABLE members (path BLOB PRIMARY KEY, {columns}) WITHOUT ROWID")
        database.execute(f"CREATE TABLE links (path BLOB, {columns})")

    def add(self, member: tarfile.TarInfo) -> None:
        """Add a member, after those before it in the tar."""
        path = member_path(member.name)
        if member.isdir():
            self._put(path, None, None, None)
        elif member.issym():
            self._put_link(path, 0, NO_BYTES, member_path(member.linkname))
        elif member.islnk():
            found = self._find(_normal(member_path(member.linkname)))
            self._put_link(path, *(found if found and found[0] is not None else (0, NO_BYTES, None)))
        else:
            self._put(*photo_of(member), None)

    def _put(self, path: bytes, size: int | None, offset: int | None, target: bytes | None) -> None:
        row = (_normal(path), size, offset, target)
        self._database.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)", row)

    def _put_link(self, path: bytes, size: int | None, offset: int | None, target: bytes | None) -> None:
        self._database.execute("INSERT INTO links VALUES (?, ?, ?, ?)", (path, size, offset, target))
        self._put(path, size, offset, target)

    def links(self) -> Iterator[_Node]:
        """Yield the links in their order; hard links are what they lead to."""
        return map(_Node._make, self._database.execute("SELECT * FROM links ORDER BY rowid"))

    def nodes_in(self, folder: bytes) -> Iterator[_Node]:
        """Yield what is in a folder and in the folders in it, except these."""
        bounds = (folder + b"/", folder + b"0") if folder else (b"", b"\xff")  # 0 follows the slash
        rows = self._database.execute(
            "SELECT * FROM members WHERE path >= ? AND path < ? AND size IS NOT NULL ORDER BY path", bounds
        )
        return map(_Node._make, rows)

    def follow(self, node: _Node) -> tuple[int, int | None] | bytes | None:
        """Return size and offset of the file that a member leads to, or the path of the folder; None for neither."""
        if node.target is None:
            return None if node.offset == NO_BYTES else (node.size, node.offset)
        path = self._resolve(_parent(_normal(node.path)), node.target)
        if path is None:
            return None
        if self._is_folder(path):
            return path
        size, offset, _ = self._find(path) or (0, NO_BYTES, None)
        return None if size is None or offset == NO_BYTES else (size, offset)

    def _resolve(self, folder: bytes, target: bytes) -> bytes | None:
        """Return the path that a link in a folder leads to, without links; None if it leaves the tar, or is a loop."""
        here, ahead = _names(folder), b""
        for _ in range(_MAX_LINKS):
            if not target or target.startswith(b"/") or len(folder) + len(target) + len(ahead) > _MAX_PATH:
                return None
            names = _names(target) + _names(ahead)
            for number, name in enumerate(names, 1):
                if name == b"..":
                    if not here:
                        return None
                    here.pop()
                    continue
                here.append(name)
                path = b"/".join(here)
                found = self._find(path)
                if found and found[2] is not None:
                    here.pop()
                    target, ahead = found[2], b"/".join(names[number:])
                    break
                if number < len(names) and not self._is_folder(path):
                    return None
            else:
                return b"/".join(here)
        return None

    def _is_folder(self, path: bytes) -> bool:
        found = self._find(path)
        return found[0] is None if found else not path or next(self.nodes_in(path), None) is not None

    def _find(self, path: bytes) -> tuple[int | None, int | None, bytes | None] | None:
        """Return size, offset and target of a member; all are None for a folder."""
        rows = self._database.execute("SELECT size, offset, target FROM members WHERE path = ?", (path,))
        found: tuple[int | None, int | None, bytes | None] | None = rows.fetchone()
        return found


def _names(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name not in (b"", b".")]


def _normal(path: bytes) -> bytes:
    return b"/".join(_names(path))


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


def _is_within(path: bytes, folder: bytes) -> bool:
    """Return whether a path is a folder's own, or of something in it."""
    return not folder or path == folder or path.startswith(folder + b"/")
