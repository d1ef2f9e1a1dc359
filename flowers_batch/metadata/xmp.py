"""The keywords in an XMP packet: those that people and other programs gave, and those that this program wrote."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from flowers_batch.metadata.packet import MalformedXmpError, Packet, parse

__all__ = ["Keywords", "MalformedXmpError", "read_keywords"]

# The namespace of what this program writes about its keywords. exiv2, of digiKam and darktable, would add the slash.
OURS = "urn:flowers-batch:xmp:1/"
DC = "http://purl.org/dc/elements/1.1/"
LIGHTROOM = "http://ns.adobe.com/lightroom/1.0/"
DIGIKAM = "http://www.digikam.org/ns/1.0/"
SUBJECT = f"{{{DC}}}subject"
HIERARCHICAL_SUBJECT = f"{{{LIGHTROOM}}}hierarchicalSubject"
TAGS_LIST = f"{{{DIGIKAM}}}TagsList"
PROPERTIES = {  # that list keywords, or paths of keywords, and what separates the levels of a path
    SUBJECT: None,
    HIERARCHICAL_SUBJECT: "|",
    TAGS_LIST: "/",
    "{http://ns.microsoft.com/photo/1.0/}LastKeywordXMP": "/",
    "{http://ns.microsoft.com/photo/1.0}LastKeywordXMP": "/",  # exiftool's spelling
    "{http://ns.iview-multimedia.com/mediapro/1.0/}CatalogSets": "|",
}
LABEL, PROBABILITY, MODEL, KEYWORDS, LISTS, CREATED = (
    f"{{{OURS}}}{name}" for name in ("Label", "Probability", "Model", "Keywords", "Lists", "Created")
)


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
    ours = _once(packet.values(KEYWORDS))
    found = values_of(packet, PROPERTIES)
    return Keywords(tuple(word for word in found if word not in ours), tuple(ours))


def values_of(packet: Packet, names: Iterable[str]) -> dict[str, None]:
    """Return the values of some of `PROPERTIES`, as `Keywords` has them."""
    return _once(with_slashes(value, name) for name in names for value in packet.values(name))


def with_slashes(value: str, name: str) -> str:
    """Return a value of a property with `/` between the levels of a path."""
    return value.replace("|", "/") if PROPERTIES[name] == "|" else value


def levels_of(label: str) -> list[str]:
    """Return the levels of a class's name, the topmost first: of `animal/bird/owl`, `animal`, `bird` and `owl`."""
    levels = (" ".join(normalized(level).split()) for level in label.split("/"))
    return [level for level in levels if level]


def normalized(text: str) -> str:
    """Return text in the form in which keywords are compared."""
    return unicodedata.normalize("NFC", text).strip()


def _once(values: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys(word for word in map(normalized, values) if word)
