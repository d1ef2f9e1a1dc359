"""Tags: the keywords that this program adds to sidecars, and takes out of them again.

Our own namespace lists them, so that they can be told from those that people gave. Everything else in a sidecar stays,
byte by byte: the text is changed in places (`splicing`), and read again before it is returned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax import saxutils

from lxml import etree

from flowers_batch.metadata.packet import RDF, MalformedXmpError, Packet, items_of, list_of, parse, text_of
from flowers_batch.metadata.splicing import Splicer
from flowers_batch.metadata.xmp import (
    CREATED,
    HIERARCHICAL_SUBJECT,
    KEYWORDS,
    LABEL,
    LISTS,
    MODEL,
    OURS,
    PROBABILITY,
    PROPERTIES,
    SUBJECT,
    TAGS_LIST,
    keywords_of,
    levels_of,
    normalized,
    values_of,
    with_slashes,
)

_PREFIXES = {SUBJECT: "dc", HIERARCHICAL_SUBJECT: "lr", TAGS_LIST: "digiKam"}
_ORDERED = (TAGS_LIST,)  # digiKam reads it as a sequence only
_OUR_PREFIX = "flowersBatch"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # https://www.w3.org/TR/xml/#charsets
_ABOUT = f"{{{RDF}}}about"
_EMPTY = """<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="flowers-batch">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 </rdf:RDF>
</x:xmpmeta>
"""


@dataclass(frozen=True)
class Tag:
    """A label for a sidecar.

    Attributes:
        label: The class; `/` separates levels.
        probability: The label's.
        model: What identifies the model that gave it.
    """

    label: str
    probability: float
    model: str

    @property
    def levels(self) -> list[str]:
        """The levels of the class's name."""
        return levels_of(self.label)

    @property
    def is_writable(self) -> bool:
        """Whether XML can have the class's name, and there is one."""
        return bool(self.levels) and not _NO_XML.search(self.label)

    @property
    def record(self) -> tuple[str, str, str]:
        """What a sidecar says of it: label, probability and model."""
        return "/".join(self.levels), f"{self.probability:.4f}", self.model


def with_tag(sidecar: bytes | None, tag: Tag | None) -> bytes | None:
    """Return a sidecar with a tag in place of the one that it has; the same object if nothing changes.

    A keyword that a person gave already stays theirs, and is not listed as ours.

    Args:
        sidecar: Its content; None if there is none.
        tag: The tag; None to take the one that it has away.

    Returns:
        Its new content; None if there is to be none: this program made it, and it would hold nothing else.

    Raises:
        MalformedXmpError: It is not XMP, or its keywords are not a list.
    """
    if sidecar is None and tag is None:
        return None
    old = parse(_EMPTY.encode() if sidecar is None else sidecar)
    if tag and record_of(old) == tag.record:
        return sidecar
    new = _without_ours(old) if OURS in old.text else old
    if tag is None and new is old:
        return sidecar
    is_ours = sidecar is None or any(old.values(CREATED))
    if tag is None and is_ours and not any(map(_properties, new.descriptions)):
        return None
    if tag:
        new = _with_ours(new, tag, is_ours)
    # Not those in the same order: a new list comes before others. Different ones: one of ours is no item of a list.
    if set(keywords_of(new).given) != set(keywords_of(old).given):
        raise MalformedXmpError("its keywords cannot be told apart from those that people gave")
    return new.text.encode(new.encoding)


def record_of(packet: Packet) -> tuple[str, str, str] | None:
    """Return label, probability and model that a packet lists as ours; None if it lists none."""
    label, probability, model = (next(iter(packet.values(name)), None) for name in (LABEL, PROBABILITY, MODEL))
    return None if label is None else (label, probability or "", model or "")


def _without_ours(packet: Packet) -> Packet:
    """Return a packet without our keywords, also where a program has copied them, and without our namespace."""
    ours = set(keywords_of(packet).ours)
    lists = {name for name in _PREFIXES if _local(name) in set(packet.values(LISTS))}
    copies = set(values_of(packet, PROPERTIES.keys() - lists))
    splicer = Splicer(packet)
    for description in packet.descriptions:
        removed = set(description.iterchildren(f"{{{OURS}}}*"))
        for name in PROPERTIES:
            for element in description.iterchildren(name):
                items, taken = items_of(element), ours | copies if name in lists else ours
                found = [item for item in items if normalized(with_slashes(text_of(item), name)) in taken]
                if items and len(found) == len(items):
                    removed.add(element)
                else:
                    for item in found:
                        splicer.remove(item)
        attributes = [name for name in description.attrib if str(name).startswith(f"{{{OURS}}}")]
        if (removed or attributes) and not _properties(description) - removed - set(attributes):
            splicer.remove(description)
            continue
        for child in removed:
            splicer.remove(child)
        splicer.remove_attributes(description, OURS)
    return parse(splicer.text.encode(packet.encoding))


def _properties(description: etree._Element) -> set[object]:
    """Return the properties in a description: child elements, and the names of attributes."""
    return {*description, *description.attrib} - {_ABOUT, "about"}


def _with_ours(packet: Packet, tag: Tag, is_ours: bool) -> Packet:
    """Return a packet, which has no tag, with one."""
    given = keywords_of(packet).given
    splicer = Splicer(packet)
    lines: list[str] = []
    added: dict[str, None] = {}
    lists = []
    for name, words in _keywords(packet, tag).items():
        own = [word for word in _for(name, words) if normalized(with_slashes(word, name)) not in given]
        added |= {with_slashes(word, name): None for word in own}
        if not own:
            continue
        if (list_ := _list_in(packet, name)) is not None:
            _append(splicer, list_, own)
            continue
        copies = [] if name == SUBJECT else _for(name, _without_levels(given))
        lists += [_local(name)] if copies else []
        lines.append(_list(_PREFIXES[name], name, [*copies, *own]))
    label, probability, model = tag.record
    values = [(LABEL, label), (PROBABILITY, probability), (MODEL, model), *([(CREATED, "True")] if is_ours else [])]
    lines += [_element(_OUR_PREFIX, name, _escaped(value)) for name, value in values]
    lines += [_list(_OUR_PREFIX, name, words) for name, words in ((KEYWORDS, added), (LISTS, lists)) if words]
    _append_description(splicer, packet, lines)
    return parse(splicer.text.encode(packet.encoding))


def _keywords(packet: Packet, tag: Tag) -> dict[str, list[str]]:
    """Return the keywords for each property, with `/` in paths.

    Immich reads no `dc:subject`. darktable reads that only if there is no `lr:hierarchicalSubject`.
    """
    path = "/".join(tag.levels)
    wanted = {SUBJECT: tag.levels, TAGS_LIST: [path]}
    if len(tag.levels) > 1 or next(packet.properties(HIERARCHICAL_SUBJECT), None) is not None:
        wanted[HIERARCHICAL_SUBJECT] = [path]
    return wanted


def _without_levels(given: Iterable[str]) -> list[str]:
    """Return the keywords that people gave for a new list of paths, without those that are a level of a path.

    digiKam, darktable and Immich read the keywords of one list alone: a new one must have those of others, too.
    """
    levels = {level for path in given if "/" in path for level in path.split("/")}
    return [word for word in given if word not in levels and "|" not in word]


def _for(name: str, words: Iterable[str]) -> list[str]:
    """Return keywords with the separator of a property."""
    return [word.replace("/", PROPERTIES[name] or "/") for word in words]


def _list_in(packet: Packet, name: str) -> etree._Element | None:
    """Return the list of a property; None if the packet does not have the property."""
    elements = list(packet.properties(name))
    list_ = next((each for element in elements if (each := list_of(element)) is not None), None)
    if list_ is None and (elements or any(name in description.attrib for description in packet.descriptions)):
        raise MalformedXmpError(f"its {_PREFIXES[name]}:{_local(name)} is not a list")
    return list_


def _append(splicer: Splicer, list_: etree._Element, words: Iterable[str]) -> None:
    prefix = f"{list_.prefix}:" if list_.prefix else ""
    space = splicer.space_before(list_[-1]) if len(list_) else ""
    splicer.append(list_, "".join(f"{space}<{prefix}li>{_escaped(word)}</{prefix}li>" for word in words))


def _append_description(splicer: Splicer, packet: Packet, lines: list[str]) -> None:
    """Add a description with our properties, next to those that there are."""
    descriptions = packet.descriptions
    about = next((str(value) for each in descriptions if (value := each.get(_ABOUT)) is not None), "")
    space = splicer.space_before(descriptions[-1]) if descriptions else "\n  "
    namespaces = {_OUR_PREFIX: OURS}
    namespaces |= {prefix: etree.QName(name).namespace for name, prefix in _PREFIXES.items()}
    if packet.rdf.nsmap.get("rdf") != RDF:
        namespaces["rdf"] = RDF
    used = {line[1:].partition(":")[0] for line in lines} | {"rdf"}
    declared = "".join(f'{space} xmlns:{prefix}="{uri}"' for prefix, uri in namespaces.items() if prefix in used)
    body = "".join(f"{space} {line}" for line in lines)
    start = f"{space}<rdf:Description rdf:about={saxutils.quoteattr(about)}{declared}>"
    splicer.append(packet.rdf, f"{start}{body}{space}</rdf:Description>")


def _list(prefix: str, name: str, words: Iterable[str]) -> str:
    items = "".join(f"<rdf:li>{_escaped(word)}</rdf:li>" for word in words)
    kind = "Seq" if name in _ORDERED else "Bag"
    return _element(prefix, name, f"<rdf:{kind}>{items}</rdf:{kind}>")


def _element(prefix: str, name: str, content: str) -> str:
    tag = f"{prefix}:{_local(name)}"
    return f"<{tag}>{content}</{tag}>"


def _escaped(text: str) -> str:
    return saxutils.escape(text, {"\r": "&#13;"})


def _local(name: str) -> str:
    """Return the name of a property without its namespace."""
    return etree.QName(name).localname
