"""Which of the places that a folder's files name are followed, since the folder may come from anyone.

docs/decisions/dataset-follow-places-on-own-store.md says why.
"""

from __future__ import annotations

import os
from typing import overload

from flowers_batch.config import IMAGENET, NULL_NETWORK, RANDOM
from flowers_batch.errors import InputError
from flowers_batch.fingerprint import NO_NETWORK
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import PathOrUrl
from flowers_batch.storage.urls import authority_of, scheme_of, with_known_scheme


@overload
def follow(folder: Folder, file: str, setting: str, place: str, given: PathOrUrl | None = None) -> str: ...
@overload
def follow(folder: Folder, file: str, setting: str, place: None, given: PathOrUrl | None = None) -> str | None: ...
def follow(folder: Folder, file: str, setting: str, place: str | None, given: PathOrUrl | None = None) -> str | None:
    """Return where something is: where the user says, else where a file of a folder says, if that may be followed.

    A place on the folder's own store may be, asked by the options of the folder's own URL. On this machine's disk the
    folder and the file must belong to the user, unless the place is in the folder.

    Args:
        folder: The folder.
        file: The file in it that names the place.
        setting: What is there, as a setting by which the user can say where.
        place: A path or URL; None for nothing.
        given: What the user says.

    Raises:
        InputError: It may not be followed.
    """
    if given is not None:
        return os.fspath(given)
    if place is None:
        return None
    scheme = scheme_of(place)
    if folder.is_local and scheme in ("", "file"):
        if not _is_of_another_user(folder, file) or _is_inside(place, folder):
            return place
        reason = "that file, or its folder, belongs to another user"
    elif scheme and _store_of(place) == _store_of(folder.url):
        _, mark, options = folder.url.partition("?")
        return f"{with_known_scheme(place.partition('?')[0])}{mark}{options}"
    else:
        reason = "that is not on the folder's own store"
    raise InputError(
        f"{folder.url_of(file)} names {_shown(place)} as `{setting}`, and {reason}: if you trust it, give it as "
        f"`{setting}`, or another place."
    )


def follow_weights(folder: Folder, file: str, name: str, given: str | None = None) -> str:
    """Return the name of weights as `follow` does; `imagenet`, `random:SEED` and none for pixels are no places.

    Raises:
        InputError: They are in a place that may not be followed.
    """
    if given is None and (name in (IMAGENET, NULL_NETWORK, NO_NETWORK) or name.startswith(RANDOM)):
        return name
    return follow(folder, file, "weights", name, given)


def _store_of(url: str) -> tuple[str, str]:
    return scheme_of(url), authority_of(url)


def _is_of_another_user(folder: Folder, file: str) -> bool:
    return any(os.stat(path).st_uid != os.geteuid() for path in (folder.path, folder.at(file)))


def _is_inside(place: str, folder: Folder) -> bool:
    """Return whether a path is below a folder, once links are followed."""
    root = os.path.realpath(folder.path)
    return os.path.commonpath([root, os.path.realpath(place)]) == root


def _shown(place: str) -> str:
    """Return a place without what may be a secret: files of version 0.1 may have one."""
    if not scheme_of(place):
        return place
    base = place.partition("?")[0]
    return f"{scheme_of(place)}://..." if ":" in authority_of(base) else base
