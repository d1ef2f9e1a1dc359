"""Keywords in packets of several programs."""

from __future__ import annotations

import pytest

from flowers_batch.metadata.xmp import Keywords, MalformedXmpError, read_keywords

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACES = (
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/" '
    'xmlns:digiKam="http://www.digikam.org/ns/1.0/" xmlns:MicrosoftPhoto="http://ns.microsoft.com/photo/1.0/" '
    'xmlns:mediapro="http://ns.iview-multimedia.com/mediapro/1.0/" xmlns:f="urn:flowers-batch:xmp:1/"'
)


def packet_of(content: str, attributes: str = "") -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
        f'<rdf:Description rdf:about="" {NAMESPACES} {attributes}>{content}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def list_of(name: str, *values: str, kind: str = "Bag") -> str:
    items = "".join(f"<rdf:li>{value}</rdf:li>" for value in values)
    return f"<{name}><rdf:{kind}>{items}</rdf:{kind}></{name}>"


def test_keywords_of_all_properties_are_given_once():
    content = (
        list_of("dc:subject", "owl", "R&amp;B", "cafe\u0301")
        + list_of("lr:hierarchicalSubject", "animal|bird|owl")
        + list_of("digiKam:TagsList", "animal/bird/owl", "place/Oslo", kind="Seq")
        + list_of("MicrosoftPhoto:LastKeywordXMP", "place/Oslo")
        + list_of("mediapro:CatalogSets", "work|kept")
    )
    given = ("owl", "R&B", "caf\u00e9", "animal/bird/owl", "place/Oslo", "work/kept")
    assert read_keywords(packet_of(content)) == Keywords(given)


def test_keywords_that_were_copied_from_ours_are_not_given():
    content = (
        list_of("dc:subject", "owl", "rose")
        + list_of("MicrosoftPhoto:LastKeywordXMP", "animal/owl", "rose")
        + list_of("f:Keywords", "owl", "animal/owl")
    )
    assert read_keywords(packet_of(content)) == Keywords(("rose",), ("owl", "animal/owl"))


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_keywords_are_read_in_every_encoding_of_xmp(encoding, bom):
    packet = (bom + packet_of(list_of("dc:subject", "\U0001f33c \u00e9")).decode()).encode(encoding)
    assert read_keywords(packet).given == ("\U0001f33c \u00e9",)


def test_keywords_as_text_and_attributes_are_read():
    assert read_keywords(packet_of("", 'dc:subject="one"')).given == ("one",)
    assert read_keywords(packet_of("<dc:subject>a<!-- b -->c</dc:subject>")).given == ("ac",)


def test_packet_in_an_image_may_end_in_nuls_and_have_a_wrapper():
    wrapped = b"<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?>" + packet_of(list_of("dc:subject", "a"))
    assert read_keywords(wrapped + b"   \n<?xpacket end='w'?>\0\0").given == ("a",)


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (b"", "not well-formed"),
        (b"\xff\x00<", "UTF-8"),
        (packet_of("<a>"), "not well-formed"),
        (b"<x/>", "not XMP"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]>' + packet_of(list_of("dc:subject", "&a;")), "document type"),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?>' + packet_of(""), "ISO-8859-1"),
        (packet_of(list_of("dc:subject", "&a;")), "not well-formed"),
        (packet_of("<a>" * 300 + "</a>" * 300), "not well-formed"),
        (packet_of(" " * (5 << 20)), "bytes"),
    ],
    ids=["empty", "encoding", "end", "other XML", "document type", "declared encoding", "entity", "depth", "size"],
)
def test_malformed_packet_is_refused_with_a_sentence(packet, words):
    with pytest.raises(MalformedXmpError, match=words):
        read_keywords(packet)
