"""Which folder above a photo names its class.

Most archives have a folder per class somewhere below the root: `daisy/1.jpg`, `train/daisy/1.jpg`, `in/daisy/1.jpg`.
A level of folders that tells no classes apart is passed over: one with the same name for all photos, or one in which
every name is in `NO_CLASSES`. If the other levels leave a doubt, no class is guessed: the readings are described, and
a person chooses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.classifier.labels_file import class_name
from flowers_batch.errors import InputError
from flowers_batch.sources.images import path_bytes, path_text
from flowers_batch.storage.folder import NOT_UTF8
from flowers_batch.text import shortened

NO_CLASSES = frozenset(  # names of folders that are rarely classes; case does not matter
    [
        *("train", "training", "valid", "validation", "val", "test", "testing", "dev", "eval"),  # splits
        *("images", "image", "imgs", "img", "photos", "photo", "pictures", "pics", "jpg", "jpeg", "png"),
    ]
)
_DATE = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}")
_OPTIONS = r"(?s)^([A-Za-z][A-Za-z0-9+.\-]*://[^?]*)\?.*$"  # of a URL; they may contain a slash
_ROOT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^/]*)|[^/]*\.tar!", re.IGNORECASE)
_CLASSES_SHOWN = 5
_READINGS_SHOWN = 3

Names = tuple[str, ...]  # of the folders above a photo, the outermost first, as class names


@dataclass(frozen=True)
class FolderLabels:
    """Labels by the folders of one level.

    Attributes:
        level: 1 for the first folder below the root, -1 for a photo's own.
    """

    level: int

    def of(self, paths: pa.Array) -> list[str | None]:
        """Return the label of each path, None where it has no folder of that level."""
        folders = _folders_of(paths).dictionary_encode()
        names = [class_at(folder_names(folder), self.level) for folder in folders.dictionary.to_pylist()]
        return [names[number] for number in folders.indices.to_pylist()]


def class_at(names: Names, level: int) -> str | None:
    """Return the class by the folder of a level; None if there is no such folder."""
    index = level - 1 if level > 0 else len(names) + level
    return names[index] or None if 0 <= index < len(names) else None


def folder_names(folder: str) -> Names:
    """Return the names of the folders above a photo.

    Args:
        folder: Its key up to the last `/`. The name of its tar is none of them; the bucket of a URL is one.
    """
    if not folder.startswith(NOT_UTF8):
        return tuple(map(class_name, _split(folder)))
    # Of these, a name that is UTF-8 is the same class as elsewhere, and only the others are percent-encoded.
    decoded = _split(path_bytes(folder).decode("utf-8", "surrogateescape"))
    names = (path_text(name.encode("utf-8", "surrogateescape")).removeprefix(NOT_UTF8) for name in decoded)
    return tuple(map(class_name, names))


def _split(folder: str) -> list[str]:
    root = _ROOT.match(folder)
    names = [root[1]] if root and root[1] else []
    for name in folder[root.end() if root else 0 :].split("/"):
        if name == ".." and names and names[-1] != "..":
            names.pop()
        elif name not in ("", "."):
            names.append(name)
    return names


def _folders_of(paths: pa.Array) -> pa.Array:
    """Return each path up to its last `/`."""
    if pc.any(pc.match_substring(paths, "://")).as_py():
        paths = pc.replace_substring_regex(paths, _OPTIONS, r"\1")
    return pc.replace_substring_regex(paths, "[^/]*$", "")


def count_folders(paths: Iterable[pa.Array]) -> Counter[Names]:
    """Return how many photos are in each folder; memory grows with folders, not photos."""
    found = Counter[str]()
    for batch in paths:
        values, counts = pc.value_counts(_folders_of(batch)).flatten()
        found.update(dict(zip(values.to_pylist(), counts.to_pylist(), strict=True)))
    named = Counter[Names]()
    for folder, count in found.items():
        named[folder_names(folder)] += count
    return named


def find_class_level(folders: Mapping[Names, int]) -> int | None:
    """Return the first level that tells classes apart; None if no photo is in a folder.

    Args:
        folders: Photos by folder.

    Raises:
        InputError: Folders can be read in several ways.
    """
    nested = [names for names in folders if names]
    if not nested:
        return None
    telling = _telling_levels(nested)
    if doubt := _doubt(nested, telling):
        raise InputError(
            f"The class of a photo is not clear from its folders ({doubt}): "
            f"choose `labels` {_readings(folders, telling)}."
        )
    return _first(telling, nested) + 1


def describe_choice(folders: Mapping[Names, int]) -> str:
    """Return what `folder` gives, or how folders can be read; empty if no photo is in a folder."""
    nested = [names for names in folders if names]
    if not nested:
        return ""
    telling = _telling_levels(nested)
    if _doubt(nested, telling):
        return _readings(folders, telling)
    return f"folder ({describe_classes(folders, _first(telling, nested) + 1)})"


def describe_classes(folders: Mapping[Names, int], level: int) -> str:
    """Return the first classes by a level, with how many photos each has."""
    counts = _classes_at(folders, level)
    shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())[:_CLASSES_SHOWN])
    return f"{shown} and {len(counts) - _CLASSES_SHOWN} more" if len(counts) > _CLASSES_SHOWN else shown


def _classes_at(folders: Mapping[Names, int], level: int) -> Counter[str]:
    counts = Counter[str]()
    for names, count in folders.items():
        if name := class_at(names, level):
            counts[name] += count
    return counts


def _telling_levels(nested: Sequence[Names]) -> list[int]:
    """Return the levels that are not passed over, counted from 0."""
    levels = range(max(map(len, nested)))
    return [level for level in levels if not _is_passed_over({names[level : level + 1] for names in nested})]


def _is_passed_over(found: Collection[Names]) -> bool:
    """Return whether a level tells no classes apart, by its names; () stands for folders that end above it."""
    return len(found) == 1 or all(name.lower() in NO_CLASSES for names in found for name in names)


def _first(telling: Sequence[int], nested: Sequence[Names]) -> int:
    """Return the level of the classes: if none tells them apart, the last one, whose only name may be a class."""
    if telling:
        return telling[0]
    longest = max(nested, key=len)
    return max(level for level, name in enumerate(longest) if name.lower() not in NO_CLASSES)


def _doubt(nested: Sequence[Names], telling: Sequence[int]) -> str:
    """Return why folders can be read in several ways; empty if they cannot."""
    left = {names: tuple(names[level] for level in telling if level < len(names)) for names in nested}
    deepest = max(left, key=lambda names: len(left[names]))
    for names, rest in left.items():
        if len(rest) < len(left[deepest]) and (rest or names[-1].lower() not in NO_CLASSES):
            return f"photos are in {_path(names)} and in {_path(deepest)}"
    if not telling and all(name.lower() in NO_CLASSES for names in nested for name in names):
        return "no name is that of a class"
    if doubt := next(_recurring(left.values()), ""):
        return doubt
    for position in range(len(telling)):
        found = {rest[position] for rest in left.values() if rest}
        if odd := sorted(name for name in found if name.lower() in NO_CLASSES):
            return f"{odd[0]} is beside {min(found.difference(odd))}"
        if len(telling) > 1 and all(map(_DATE.fullmatch, found)):
            return f"{min(found)} is a date"
    return ""


def _recurring(folders: Iterable[Names]) -> Iterator[str]:
    """Yield names that are in several folders."""
    parents: dict[tuple[int, str], Names] = {}
    for names in folders:
        for depth in range(1, len(names)):
            parent = parents.setdefault((depth, names[depth]), names[:depth])
            if parent != names[:depth]:
                yield f"{names[depth]} is in {_path(parent)} and in {_path(names[:depth])}"


def _path(names: Names) -> str:
    return shortened("/".join(names))


def _readings(folders: Mapping[Names, int], telling: Sequence[int]) -> str:
    """Return the ways to read folders, each as it is chosen and with the classes that it gives."""
    levels = [*(level + 1 for level in telling[:1]), -1, *(level + 1 for level in telling[1:]), -2]
    by_result = {tuple(class_at(names, level) for names in folders): level for level in reversed(levels)}
    chosen = [level for level in levels if level in by_result.values()]
    useful = [level for level in chosen if _tells_apart(_classes_at(folders, level))] or chosen[:1]
    texts = [f"folder:{level} ({describe_classes(folders, level)})" for level in useful[:_READINGS_SHOWN]]
    return " or ".join(texts)


def _tells_apart(classes: Collection[str]) -> bool:
    return len(classes) > 1 and not all(name.lower() in NO_CLASSES for name in classes)
