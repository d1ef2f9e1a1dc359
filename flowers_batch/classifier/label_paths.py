"""The paths of labels, matched with those of photos although people and programs write them in other ways."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import chain
from typing import TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.dataset.job import Job
from flowers_batch.dataset.run_folder import Run
from flowers_batch.sources.images import PATH, path_bytes
from flowers_batch.sources.list_files import READERS
from flowers_batch.storage.folder import NOT_UTF8
from flowers_batch.storage.urls import scheme_of, split_options, with_known_scheme

T = TypeVar("T")

_FILES = (*READERS, "tar")  # endings of what names photos and is no folder
_MAYBE_ODD = re.compile(r"[^\x20-\x7e]|^[ ./]| $|\\|//|/\.|!\.")  # in every path that is not its own normal form
_AROUND_STEM = r"(?s)^.*/|\.[^./]*$"  # what surrounds a file's name without its ending
_MAX_CANDIDATES = 200  # photos of one name that a path without a photo is compared with
_MAX_COMPARED = 200  # characters of them, from the end
_SEVERAL = ""  # instead of a photo's path: several photos have the form


def match_labels(labels: Mapping[str, T], run: Run) -> dict[str, T]:
    """Return labels, or what else there is by path, by the paths of a run's photos.

    A path is taken as it is if a photo has it. Otherwise it is the photo's whose path has the same normal form
    (`PathForm`), unless several photos have that form.

    Args:
        labels: By path as written.
        run: Codes or predictions.

    Returns:
        The labels; those without a photo by their paths as written.
    """
    found = match_paths(labels, lambda: _paths(run), PathForm(root_of(run.job)))
    matched = {found[path]: label for path, label in labels.items() if path in found}
    return matched | {path: label for path, label in labels.items() if path not in found}  # exact ones come first


def match_paths(paths: Iterable[str], photos: Callable[[], Iterable[pa.Array]], form: PathForm) -> dict[str, str]:
    """Return the photos' paths of those paths that are written in another way.

    Args:
        paths: As people wrote them.
        photos: Yields the paths of all photos. Only if a path is not among them, it is called a second time.
        form: The normal form.
    """
    unmatched = set(paths)
    if not unmatched:
        return {}
    for column in photos():
        unmatched.difference_update(column.to_pylist())
        if not unmatched:
            return {}
    readings = {path: form.readings(path) for path in unmatched}
    photo_of: dict[str, str] = {}
    wanted = set(chain.from_iterable(readings.values()))
    for column in photos():
        for photo in column.to_pylist():
            if (own := form.of(photo)) in wanted:
                photo_of[own] = _SEVERAL if own in photo_of else photo
    found = {
        path: next((photo_of[meant] for meant in forms if meant in photo_of), _SEVERAL)
        for path, forms in readings.items()
    }
    return {path: photo for path, photo in found.items() if photo != _SEVERAL}


class PathForm:
    """The normal form of paths below an archive's root.

    It is in Unicode's NFC, has `/` for a backslash, no spaces at its ends and no parts that are empty or `.`, and is
    relative to the root, if it is below it. URLs have no options, and schemes as `with_known_scheme` returns them.
    Names that are not UTF-8 are read as Windows-1252, as labels files are.

    Args:
        root: The folder that holds the archive: a path or a URL, without options.
    """

    def __init__(self, root: str):
        self._root = _plain(root).rstrip("/") + "/"
        parts = self._root.strip("/").split("/")
        # Of a path that begins with a folder above the root, such as `photos/a.jpg`, where `photos` is the root.
        self._ends = ["/".join(parts[start:]) + "/" for start in range(len(parts))]

    def of(self, path: str) -> str:
        """Return the normal form of a path."""
        return _plain(path).removeprefix(self._root) if _MAYBE_ODD.search(path) else path

    def readings(self, path: str) -> tuple[str, ...]:
        """Return the forms of what a path may mean, the likeliest first."""
        form = self.of(path)
        above = next((end for end in self._ends if form.startswith(end)), None)
        return (form,) if above is None else (form, form.removeprefix(above))


def _plain(path: str) -> str:
    if path.startswith(NOT_UTF8):
        path = path_bytes(path).decode("cp1252", "replace")
    path = unicodedata.normalize("NFC", path).strip().replace("\\", "/")
    if scheme_of(path):
        path = split_options(with_known_scheme(path))[0].removeprefix("file://")
    scheme, sign, rest = path.rpartition("://")
    return scheme + sign + posixpath.normpath(rest.replace("!./", "!")).replace("//", "/", 1)


def root_of(job: Job) -> str:
    """Return the folder that holds a run's photos, or the list, tars or tables that do; a path, or a URL."""
    if job.root:
        return _without_options(job.root)
    base = _without_options(job.images)
    folder, _, name = base.rpartition("/")
    is_file = "*" in name or name.rpartition(".")[2].lower() in _FILES
    return folder if is_file and not os.path.isdir(base) else base


def _without_options(where: str) -> str:
    return unquote(where.partition("?")[0]) if scheme_of(where) else where


def nearest_paths(paths: Sequence[str], run: Run) -> list[str | None]:
    """Return, for each path, the photo's path that is most like it among those with the same file name.

    Args:
        paths: A few paths without a photo.
        run: Codes or predictions.

    Returns:
        The photos' paths; None if no photo has the name. Case and endings of names do not matter.
    """
    form = PathForm(root_of(run.job))
    written = [form.of(path) for path in paths]
    names = _stems(pa.array(written, pa.string())).to_pylist()
    candidates = {name: list[str]() for name in names}
    for column in _paths(run):
        stems = _stems(column)
        alike = pc.is_in(stems, pa.array(candidates, pa.string()))
        for photo, name in zip(column.filter(alike).to_pylist(), stems.filter(alike).to_pylist(), strict=True):
            if len(candidates[name]) < _MAX_CANDIDATES:
                candidates[name].append(photo)
    return [
        max(candidates[name], key=lambda photo, path=path: _likeness(photo, path), default=None)  # type: ignore[misc]
        for path, name in zip(written, names, strict=True)
    ]


def _stems(paths: pa.Array) -> pa.Array:
    return pc.utf8_lower(pc.replace_substring_regex(paths, _AROUND_STEM, ""))


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one[-_MAX_COMPARED:], other[-_MAX_COMPARED:], autojunk=False).ratio()


def _paths(run: Run) -> Iterator[pa.Array]:
    for batch in run.batches([PATH]):
        yield batch[PATH]
