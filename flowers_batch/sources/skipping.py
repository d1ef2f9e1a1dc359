"""What a listing leaves out: the files of systems and programs, hidden names, and what the user excludes.

A rule is a pattern like those of rsync and git. Without a `/` it matches a name at any depth; with one it matches the
path below the root, and `**` stands for any folders. A `/` at its end makes it match folders only. `*`, `?` and `[...]`
never match a `/`. A folder that matches is left out with all that is in it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from typing import Any

from flowers_batch.errors import InputError

HIDDEN = "hidden"  # the kind of names that begin with a dot and are not in the table
_MAX_PATH_BYTES = 8192  # bytes, twice as many as Linux allows
_EXCLUDED = "exclude "  # begins the kind of what a pattern of the user leaves out

SYSTEM = {  # which names are never photos of the user, and what makes them; case does not matter
    # Network storage
    "@eaDir/": "Synology: thumbnails and metadata",
    "#recycle/": "Synology, TerraMaster, UGREEN: recycle bin",
    "#snapshot/": "Synology: snapshots of the shared folder",
    "@Recycle/": "QNAP: recycle bin",
    "@Recently-Snapshot/": "QNAP: snapshots of the shared folder",
    "@Transcode/": "QNAP: transcoded copies",
    "@__thumb/": "QNAP: thumbnails",
    ".@__thumb/": "QNAP: thumbnails",
    "~snapshot/": "NetApp: snapshots, over SMB",
    ".snapshot/": "NetApp, Isilon, Qumulo: snapshots, over NFS",
    ".snapshots/": "Snapper: Btrfs snapshots",
    ".zfs/": "ZFS: snapshots",
    ".recycle/": "Samba: recycle bin",
    # Operating systems
    "$RECYCLE.BIN/": "Windows: recycle bin",
    "RECYCLER/": "Windows XP: recycle bin",
    "System Volume Information/": "Windows: restore points",
    "found.[0-9][0-9][0-9]/": "Windows: fragments that chkdsk found",
    "Thumbs.db": "Windows: thumbnails",
    "ehthumbs*.db": "Windows Media Center: thumbnails",
    "desktop.ini": "Windows: the folder's appearance",
    "._*": "macOS: resource forks, on foreign disks",
    "__MACOSX/": "macOS: resource forks, in archives",
    "Icon\r": "macOS: the folder's icon",
    ".Trashes/": "macOS: trash of a removable disk",
    "Network Trash Folder/": "macOS: trash of a file server",
    "Temporary Items/": "macOS: scratch files on a file server",
    ".Trash/": "Linux, macOS: trash",
    ".Trash-*/": "Linux: trash of a mounted disk",
    "lost+found/": "Linux: fragments that fsck found",
    ".thumbnails/": "Linux, Android: thumbnails",
    # Programs
    ".ipynb_checkpoints/": "Jupyter: copies",
    "*.lrdata/": "Lightroom: previews",
    "**/*.photoslibrary/resources/": "Apple Photos: derivatives and thumbnails",
    "**/*.photoslibrary/scopes/*/resources/": "Apple Photos: derivatives of shared photos",
    "**/*.photoslibrary/Thumbnails/": "Apple Photos: thumbnails",
    "**/*.photoslibrary/Previews/": "Apple Photos: previews",
    "**/*.photolibrary/resources/": "iPhoto: derivatives and thumbnails",
    "**/*.photolibrary/Thumbnails/": "iPhoto: thumbnails",
    "**/*.photolibrary/Previews/": "iPhoto: previews",
    "**/*.aplibrary/Thumbnails/": "Aperture: thumbnails",
    "**/*.aplibrary/Previews/": "Aperture: previews",
    "**/iPhoto Library/Data/": "iPhoto: thumbnails",
    "**/iPhoto Library/Data.noindex/": "iPhoto: thumbnails",
    "**/iPhoto Library/Thumbnails/": "iPhoto: thumbnails",
    "**/iPhoto Library/Previews/": "iPhoto: previews",
    "iPod Photo Cache/": "iTunes: copies for an iPod",
    ".picasaoriginals/": "Picasa: photos before they were edited",
    "Picasa.ini": "Picasa: settings",
    "ZbThumbnail.info": "ZoomBrowser: thumbnails",
    "pspbrwse.jbf": "Paint Shop Pro: thumbnails",
    "**/appdata_*/preview/": "Nextcloud: thumbnails",
    "files_trashbin/": "Nextcloud: recycle bin",
    "files_versions/": "Nextcloud: earlier versions of files",
    ".stversions/": "Syncthing: earlier versions of files",
    "**/PRIVATE/M4ROOT/THMBNL/": "Sony cameras: thumbnails of videos",
}


@dataclass(frozen=True)
class Skipping:
    """Which names below a source's root are left out.

    Attributes:
        include_hidden: Whether hidden names and those of `SYSTEM` are taken.
        exclude: Patterns of what is left out in any case; their case matters.
    """

    include_hidden: bool = False
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.exclude, tuple):
            raise InputError(f"`exclude` must be a tuple of patterns, such as ('*.bak',). Received: {self.exclude!r}.")
        for pattern in self.exclude:
            if not isinstance(pattern, str) or not pattern.strip("/"):
                raise InputError(f"`exclude` must name files or folders, such as `*.bak`. Received: {pattern!r}.")

    @property
    def exclude_kinds(self) -> list[str]:
        """The kinds of what the user's patterns leave out."""
        return list(map(_exclude_kind, self.exclude))

    def kind(self, path: bytes, *, is_folder: bool, root: bytes = b"") -> str | None:
        """Return the kind under which a file or folder is left out, None if it is not; folders above it do not count.

        Args:
            path: Below the root, with `/`.
            is_folder: Whether it is a folder, and not a file.
            root: The root's name: it may be the library of a photo program, some of whose folders are left out.

        Returns:
            `exclude PATTERN`, a pattern of `SYSTEM` without its slash at the end, `hidden`, or None.
        """
        names = _names(path) if self.exclude else ()
        for pattern in self.exclude:
            if _matches(_normal(pattern), names, is_folder):
                return _exclude_kind(pattern)
        return None if self.include_hidden else _system_kind(path, is_folder, root)

    def to_json(self) -> dict[str, Any]:
        """Return the rules as JSON."""
        return {"include_hidden": self.include_hidden, "exclude": list(self.exclude)}

    def kind_within(self, path: bytes) -> str | None:
        """Return the kind under which a file is left out, by its own name or a folder's above it; None if it is not.

        Of a path that is too long for any file system, only the name counts: judging each of its folders would take
        time that grows with the square of their number.
        """
        folder, _, name = path.rpartition(b"/")
        if len(path) > _MAX_PATH_BYTES:
            folder, path = b"", name
        return (_kind_of_folder(self, folder) if folder else None) or self.kind(path, is_folder=False)


SKIP_SYSTEM = Skipping()
SKIP_NOTHING = Skipping(include_hidden=True)


def skipping_from_json(values: Mapping[str, Any]) -> Skipping:
    """Read what `Skipping.to_json` returned; without it, everything was taken, as version 0.1 did."""
    return Skipping(values.get("include_hidden", True), tuple(values.get("exclude", ())))


def kind_text(kind: str) -> str:
    """Return a kind for people, behind a number: `in @eaDir`, `hidden`, `excluded by *.bak`."""
    if kind.startswith(_EXCLUDED):
        return f"excluded by {kind.removeprefix(_EXCLUDED)}"
    if kind == HIDDEN:
        return kind
    is_folder = SYSTEM.keys() & {f"{kind}/", f"**/{kind}/"}
    return f"{'in' if is_folder else 'named'} {kind}"


@lru_cache(1024)  # a tar's members are mostly together by folder
def _kind_of_folder(skipping: Skipping, folder: bytes) -> str | None:
    # No recursion, since a tar's members may be in thousands of folders, one in the other.
    ends = [*(slash.start() for slash in re.finditer(b"/", folder)), len(folder)]
    kinds = (skipping.kind(folder[:end], is_folder=True) for end in ends if folder[:end])
    return next((kind for kind in kinds if kind is not None), None)


def _exclude_kind(pattern: str) -> str:
    # Summaries are UTF-8, which a pattern of names that are not UTF-8 is not.
    return _EXCLUDED + pattern.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _names(path: bytes) -> tuple[str, ...]:
    text = _normal(path.decode("utf-8", "surrogateescape"))
    return tuple(name for name in text.split("/") if name not in ("", ".", ".."))


def _normal(text: str) -> str:
    """Return a text in which an umlaut is one character, as it is typed, and not two, as macOS stores it."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _any_name(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return what matches a name in lower case that is the last one of a pattern: photos are judged by millions."""
    return re.compile("|".join(translate(pattern.rstrip("/").rpartition("/")[2].lower()) for pattern in patterns))


_SYSTEM_FOLDERS = _any_name(SYSTEM)
_SYSTEM_FILES = _any_name(pattern for pattern in SYSTEM if not pattern.endswith("/"))


def _system_kind(path: bytes, is_folder: bool, root: bytes) -> str | None:
    name = path.rpartition(b"/")[2].decode("utf-8", "surrogateescape").lower()
    if (_SYSTEM_FOLDERS if is_folder else _SYSTEM_FILES).match(name):
        names = tuple(name.lower() for name in _names(root + b"/" + path))
        for pattern in SYSTEM:
            if _matches(pattern.lower(), names, is_folder):
                return pattern.removeprefix("**/").rstrip("/")
    return HIDDEN if name.startswith(".") and name not in (".", "..") else None


def _matches(pattern: str, names: tuple[str, ...], is_folder: bool) -> bool:
    """Return whether a pattern matches a path, given as its names."""
    if pattern.endswith("/") and not is_folder:
        return False
    wanted = pattern.rstrip("/")
    if "/" not in wanted:
        return bool(names) and fnmatchcase(names[-1], wanted)
    return _match_names(tuple(name for name in wanted.split("/") if name not in ("", ".")), names)


def _match_names(wanted: tuple[str, ...], names: tuple[str, ...]) -> bool:
    if not wanted:
        return not names
    if wanted[0] == "**":
        return any(_match_names(wanted[1:], names[start:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], wanted[0]) and _match_names(wanted[1:], names[1:])
