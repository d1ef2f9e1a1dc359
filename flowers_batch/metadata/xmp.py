"""The keywords in an XMP packet: those that people and other programs gave, and those that this program wrote."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flowers_batch.metadata.packet import MalformedXmpError, Packet, parse

__all__ = ["Keywords", "MalformedXmpError", "read_keywords"]

OURS = "urn:flowers-batch:xmp:1:"  # the namespace of what this program writes about its keywords
DC = "http://purl.org/dc/elements/1.1/"
LIGHTROOM = "http://ns.adobe.com/lightroom/1.0/"
DIGIKAM = "http://www.digikam.org/ns/1.0/"
SUBJECT = f"{{{DC}}}subject"
HIERARCHICAL_SUBJECT = f"{{{LIGHTROOM}}}hierarchicalSubject"
TAGS_LIST = f"{{{DIGIKAM}}}TagsList"
SEPARATORS = {  # of the levels of a path, by the property that lists paths
    HIERARCHICAL_SUBJECT: "|",
    TAGS_LIST: "/",
    "{http://ns.microsoft.com/photo/1.0/}LastKeywordXMP": "/",
    "{http://ns.microsoft.com/photo/1.0}LastKeywordXMP": "/",  # exiftool's spelling
    "{http://ns.iview-multimedia.com/mediapro/1.0/}CatalogSets": "|",
}
LABEL, PROBABILITY, MODEL, CREATED = (f"{{{OURS}}}{name}" for name in ("Label", "Probability", "Model", "Created"))
RECORDS = {  # our property that lists what was added to a property
    SUBJECT: f"{{{OURS}}}Subject",
    HIERARCHICAL_SUBJECT: f"{{{OURS}}}HierarchicalSubject",
    TAGS_LIST: f"{{{OURS}}}TagsList",
}


@dataclass(frozen=True)
class Keywords:
    """The keywords of a photo, as Unicode in form NFC, each once. Levels of a path are separated by `/`.

    Attributes:
        given: By people or other programs: keywords, and paths of keywords.
        ours: That this program wrote; they are not in `given`, even if another program has copied them.
    """

    given: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()


def read_keywords(packet: bytes) -> Keywords:
    """Return the keywords in an XMP packet or sidecar.

    Raises:
        MalformedXmpError: It is not XMP.
    """
    return keywords_of(parse(packet))


def keywords_of(packet: Packet) -> Keywords:
    """Return the keywords in a packet."""
    ours = _once(_ours(packet))
    return Keywords(tuple(word for word in _once(_all(packet)) if word not in ours), tuple(ours))


def _ours(packet: Packet) -> Iterator[str]:
    """Yield the label and all its levels, too: a program may copy them where this one has not written them."""
    for label in packet.values(LABEL):
        yield label
        yield from levels_of(label)
    for name, record in RECORDS.items():
        for value in packet.values(record):
            yield _with_slashes(value, name)


def _all(packet: Packet) -> Iterator[str]:
    yield from packet.values(SUBJECT)
    for name in SEPARATORS:
        for value in packet.values(name):
            yield _with_slashes(value, name)


def _with_slashes(value: str, name: str) -> str:
    return value.replace("|", "/") if SEPARATORS.get(name) == "|" else value


def levels_of(label: str) -> list[str]:
    """Return the levels of a class's name, the topmost first: of `animal/bird/owl`, `animal`, `bird` and `owl`."""
    levels = (" ".join(normalized(level).split()) for level in label.split("/"))
    return [level for level in levels if level]


def normalized(text: str) -> str:
    """Return text in the form in which keywords are compared."""
    return unicodedata.normalize("NFC", text).strip()


def _once(values: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys(word for word in map(normalized, values) if word)
