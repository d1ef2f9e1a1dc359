"""The text of an XMP packet or sidecar, and its elements. Whoever wrote it is not trusted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from lxml import etree

from flowers_batch.errors import first_line

MAX_BYTES = 4 << 20  # of a packet: sidecars of darktable and Lightroom with many masks have some hundred kilobytes
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_ROOT, _DESCRIPTION, _ITEM = f"{{{RDF}}}RDF", f"{{{RDF}}}Description", f"{{{RDF}}}li"
_LISTS = tuple(f"{{{RDF}}}{kind}" for kind in ("Bag", "Seq", "Alt"))
_ENCODINGS = (  # by how a text that begins with `<` begins, with or without a byte order mark
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_UTF8 = "utf-8"
_POSITION = re.compile(r" \(<string>, line \d+\)")  # that lxml adds to libxml2's own
_OTHER_ENCODING = re.compile(r"""\A\ufeff?<\?xml[^>]*?\sencoding\s*=\s*["'](?!utf-?8["']|us-ascii["'])([^"']*)""", re.I)


class MalformedXmpError(Exception):
    """A packet is not XMP, or has what it cannot have; the text is one sentence without a name."""


@dataclass(frozen=True)
class Packet:
    """A packet.

    Attributes:
        text: All of it, with a byte order mark if it has one.
        encoding: The codec of its bytes.
        rdf: The element that has its content, without comments and processing instructions.
    """

    text: str
    encoding: str
    rdf: etree._Element

    @cached_property
    def descriptions(self) -> tuple[etree._Element, ...]:
        """The elements whose attributes and children are properties of the photo."""
        return tuple(self.rdf.iterchildren(_DESCRIPTION))

    def properties(self, name: str) -> Iterator[etree._Element]:
        """Yield the elements of a property; valid packets have at most one.

        Args:
            name: As lxml has it: `{namespace}name`.
        """
        for description in self.descriptions:
            yield from description.iterchildren(name)

    def values(self, name: str) -> Iterator[str]:
        """Yield the values of a property, whether it is a list, an element with text, or an attribute."""
        for description in self.descriptions:
            if name in description.attrib:
                yield str(description.attrib[name])
        for element in self.properties(name):
            items = items_of(element)
            yield from (text_of(item) for item in items)
            if not items and not len(element):
                yield text_of(element)


def parse(packet: bytes) -> Packet:
    """Return a packet.

    No entity is expanded, no document type is read, and nothing is fetched; lxml refuses more than 256 levels.

    Raises:
        MalformedXmpError: It is too large, or is not XMP.
    """
    if len(packet) > MAX_BYTES:
        raise MalformedXmpError(f"it has {len(packet)} bytes, and {MAX_BYTES} are allowed")
    encoding = next((codec for start, codec in _ENCODINGS if packet.startswith(start)), _UTF8)
    try:
        text = packet.decode(encoding)
    except UnicodeDecodeError:
        raise MalformedXmpError(f"it is not {encoding.upper()}") from None
    other = _OTHER_ENCODING.match(text)
    if encoding == _UTF8 and other:
        raise MalformedXmpError(f"its encoding is {other[1][:40]}, and that of XMP is UTF-8 or UTF-16")
    if "<!DOCTYPE" in text:
        raise MalformedXmpError("it has a document type, which XMP has not")
    return Packet(text, encoding, _rdf(text))


def items_of(element: etree._Element) -> list[etree._Element]:
    """Return the items of a property that is a list; none of another one."""
    return [item for list_ in element.iterchildren(*_LISTS) for item in list_.iterchildren(_ITEM)]


def list_of(element: etree._Element) -> etree._Element | None:
    """Return the list in the element of a property; None if it has none."""
    return next(element.iterchildren(*_LISTS), None)


def text_of(element: etree._Element) -> str:
    """Return the text in an element."""
    return "".join(element.itertext())


def _rdf(text: str) -> etree._Element:
    parser = etree.XMLParser(
        encoding=_UTF8,  # whatever the text says of itself
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        # Packets inside images may end in NULs.
        root = etree.fromstring(text.removeprefix("\ufeff").rstrip("\0").encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        reason = _POSITION.sub("", first_line(error)).rstrip(".")
        raise MalformedXmpError(f"it is not well-formed XML ({reason})") from None
    rdf = next(root.iter(_ROOT), None)
    if rdf is None:
        raise MalformedXmpError("it is XML, but not XMP")
    return rdf
