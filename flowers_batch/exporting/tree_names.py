"""Names in a tree with a folder per class.

Classes are untrusted text, and the tree may be copied to any file system: names are those that Linux, macOS and Windows
accept, and differ by more than case or the form of their accents.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from flowers_batch.sources.pairs import own_name

# Windows and exFAT refuse these; % begins what stands for another character.
_REFUSED = re.compile(r'[\x00-\x1f\x7f<>:"\\|?*/%]')
_DEVICE = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9\xb9\xb2\xb3])(?: *\.| *\Z)", re.I
)  # of Windows
_MAX_BYTES = 143  # of a name in an encrypted folder (eCryptfs, which Synology uses); others allow 255
_MAX_FILE_BYTES = 251  # its sidecar has four more
_MAX_DEPTH = 16  # folders below each other; with this many of `_MAX_BYTES`, a path stays below the 4,096 bytes of Linux
_TAG_DIGITS, _LONG_TAG_DIGITS = 8, 32  # hexadecimal


def class_folders(classes: Iterable[str]) -> dict[str, str]:
    """Return the folder of each class, relative to the tree: `animal/bird` is in the folder `animal`.

    A character that a file system refuses becomes % and two hexadecimal digits, as in URLs. Long names are cut, and
    names that differ only in their case get an ending, of their hash.
    """
    folders: dict[tuple[str, ...], str] = {(): ""}
    taken: set[bytes] = set()
    for name in sorted(classes):
        for prefix in _prefixes(_parts(name)):
            if prefix not in folders:
                folder = next(each for each in _candidates(folders[prefix[:-1]], prefix) if name_key(each) not in taken)
                taken.add(name_key(folder))
                folders[prefix] = folder
    return {name: folders[_parts(name)] for name in classes}


def folder_keys(folders: Iterable[str]) -> set[bytes]:
    """Return `name_key` of folders, and of the folders above them."""
    return {name_key("/".join(prefix)) for folder in folders for prefix in _prefixes(tuple(folder.split("/")))}


def name_key(name: str) -> bytes:
    """Return what two names have in common that a file system may take for one."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return folded.encode(errors="surrogateescape")


def tags(paths: Sequence[str]) -> Iterator[str]:
    """Yield what the files of a photo may have in their names: nothing, else what tells them from others of their name.

    Args:
        paths: The keys of the files.
    """
    yield ""
    for digits in (_TAG_DIGITS, _LONG_TAG_DIGITS):
        yield from (f"-{_hash(path, digits)}" for path in paths)


def tagged(name: str, tag: str) -> str:
    """Return a file's name with a tag before its suffixes; names that become too long are cut there."""
    if not tag:
        return name
    own = own_name(name)
    ending = tag + name[len(own) :]
    return _cut(own, _MAX_FILE_BYTES - len(ending.encode(errors="surrogateescape"))) + ending


def _parts(name: str) -> tuple[str, ...]:
    """Return the names of a class and of those above it; very deep ones are one name."""
    return tuple(name.split("/", _MAX_DEPTH - 1))


def _prefixes(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (parts[:end] for end in range(1, len(parts) + 1))


def _candidates(parent: str, parts: tuple[str, ...]) -> Iterator[str]:
    """Yield the names that a folder may have."""
    prefix = f"{parent}/" if parent else ""
    yield f"{prefix}{_escaped(parts[-1])}"
    yield f"{prefix}{_with_hash(_escaped(parts[-1]), parts[-1])}"


def _escaped(part: str) -> str:
    text = _REFUSED.sub(lambda found: _as_digits(found[0]), part) or "%"
    if text.startswith(".") or _DEVICE.match(text):
        text = _as_digits(text[0]) + text[1:]
    if text.endswith((".", " ")):
        text = text[:-1] + _as_digits(text[-1])
    return text if len(text.encode()) <= _MAX_BYTES else _with_hash(text, part)


def _with_hash(text: str, part: str) -> str:
    """Return an escaped name with an ending that no other name has: % is followed by two digits elsewhere."""
    ending = f"%-{_hash(part, _LONG_TAG_DIGITS)}"
    return _cut(text, _MAX_BYTES - len(ending)) + ending


def _as_digits(character: str) -> str:
    return f"%{ord(character):02X}"


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:digits]


def _cut(text: str, max_bytes: int) -> str:
    encoded = text.encode(errors="surrogateescape")
    return text if len(encoded) <= max_bytes else encoded[:max_bytes].decode(errors="ignore")
