"""Changing the text of a packet in places, so that every other byte of it stays: no serializer keeps them all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from flowers_batch.metadata.packet import MalformedXmpError, Packet

_QUOTED = r"""(?:"[^"]*"|'[^']*')"""
# In well-formed XML, each `<` begins one of these. Only the last kind, in its groups, is the tag of an element.
_MARKUP = re.compile(
    rf"<!--.*?-->|<\?.*?\?>|<!\[CDATA\[.*?\]\]>|<(?P<end>/)?[^<>\"'!?](?:[^<>\"']|{_QUOTED})*?(?P<empty>/)?>", re.DOTALL
)
_ATTRIBUTE = re.compile(rf"\s+(?P<name>[^\s=/]+)\s*=\s*(?P<value>{_QUOTED})")


@dataclass(frozen=True)
class Span:
    """Where an element is in a text.

    Attributes:
        start: Where its tag begins.
        inner: Where its content begins: after its tag.
        outer: Where its content ends, and its end tag begins; `inner` for an element that is one tag.
        end: After its end tag.
    """

    start: int
    inner: int
    outer: int
    end: int

    @property
    def is_one_tag(self) -> bool:
        """Whether it is written as `<name/>`."""
        return self.outer == self.end


class Splicer:
    """Collects changes of a packet's text. Positions are those of the text before all changes.

    Args:
        packet: The packet.
    """

    def __init__(self, packet: Packet):
        self._text = packet.text
        # The elements are kept, since lxml would make new objects of them.
        self._elements = list(packet.rdf.getroottree().iter(etree.Element))
        spans = _spans(packet.text)
        if len(spans) != len(self._elements):
            raise MalformedXmpError("its elements cannot be told apart")
        self._spans = dict(zip(self._elements, spans, strict=True))
        self._changes: list[tuple[int, int, str]] = []

    def remove(self, element: etree._Element) -> None:
        """Remove an element, and the white space before it."""
        span = self._spans[element]
        self._changes.append((len(self._text[: span.start].rstrip()), span.end, ""))

    def remove_attributes(self, element: etree._Element, namespace: str) -> None:
        """Remove an element's attributes of a namespace, and its declaration."""
        span = self._spans[element]
        for found in _ATTRIBUTE.finditer(self._text, span.start, span.inner):
            prefix, colon, name = found["name"].rpartition(":")
            if element.nsmap.get(name if prefix == "xmlns" else prefix) == namespace and colon:
                self._changes.append((found.start(), found.end(), ""))

    def append(self, element: etree._Element, text: str) -> None:
        """Add text after an element's last child element, or at the beginning of its content if it has none."""
        span = self._spans[element]
        if span.is_one_tag:
            name = re.match(r"<([^\s/>]+)", self._text[span.start :])
            assert name
            slash = self._text.rindex("/", span.start, span.end)
            self._changes.append((slash, span.end, f">{text}</{name[1]}>"))
            return
        position = self._spans[element[-1]].end if len(element) else span.inner
        self._changes.append((position, position, text))

    def space_before(self, element: etree._Element) -> str:
        """Return the white space before an element."""
        before = self._text[: self._spans[element].start]
        return before[len(before.rstrip()) :]

    @property
    def text(self) -> str:
        """The text with all changes; a change within a removed element has no effect."""
        parts, position = [], 0
        for start, end, replacement in sorted(self._changes, key=lambda change: (change[0], -change[1])):
            if start >= position:
                parts += [self._text[position:start], replacement]
                position = end
        return "".join([*parts, self._text[position:]])


def _spans(text: str) -> list[Span]:
    """Return where the elements of well-formed XML are, in the order of their tags."""
    spans: list[Span] = []
    open_elements: list[int] = []
    for number, found in _tags(text):
        if found["end"]:
            begun = open_elements.pop()
            spans[begun] = Span(spans[begun].start, spans[begun].inner, found.start(), found.end())
            continue
        spans.append(Span(found.start(), found.end(), found.end(), found.end()))
        if not found["empty"]:
            open_elements.append(number)
    return spans


def _tags(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Yield the tags of elements, and how many elements began before."""
    number = 0
    for found in _MARKUP.finditer(text):
        if found[0].startswith(("<!", "<?")):
            continue
        yield number, found
        number += not found["end"]
