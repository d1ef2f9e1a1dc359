"""Keywords inside image files and sidecars, as decode workers find them: both may come from strangers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from flowers_batch.decoding.errors import DecodeError
from flowers_batch.metadata.blocks import XMP, Block, metadata_blocks
from flowers_batch.metadata.file_keywords import FileKeywords
from flowers_batch.metadata.iptc import MalformedIptcError, read_iptc
from flowers_batch.metadata.xmp import OURS, PROPERTIES, Keywords, MalformedXmpError, read_keywords

_MAX_CHARACTERS = 255  # of a keyword, as of a label
_MAX_PROBLEMS = 3
# What packets with keywords have somewhere: names of properties, or our namespace.
_FIELDS = {name.rpartition("}")[2].encode() for name in (*PROPERTIES, f"}}{OURS}")}
_END = b"</rdf:RDF>"
_XML_STARTS = (b"<", b"\xef\xbb\xbf<", b"\xfe\xff", b"\xff\xfe")  # UTF-8 without and with its mark, UTF-16


def embedded_keywords(data: bytes) -> FileKeywords:
    """Return the keywords in the XMP and IPTC of an image file, or of a sidecar; what is broken counts as a problem.

    Args:
        data: The file's bytes, of any format: one that is unknown has no keywords.
    """
    if data.lstrip().startswith(_XML_STARTS):
        return _collected([Block(XMP, data)], is_xmp=True)
    return _collected(metadata_blocks(data))


def _collected(blocks: Iterable[Block], *, is_xmp: bool = False) -> FileKeywords:
    found, problems = list[Keywords](), list[str]()
    try:
        for block in blocks:
            try:
                found.append(_read(block))
            except (MalformedXmpError, MalformedIptcError) as error:
                problems.append(f"Its {block.kind} cannot be read: {error}.")
    except DecodeError as error:
        problems.append(str(error))
    given, ours = (
        dict.fromkeys(chain.from_iterable(getattr(each, name) for each in found)) for name in ("given", "ours")
    )
    kept = tuple(word for word in given if len(word) <= _MAX_CHARACTERS)
    if len(kept) < len(given):
        problems.append(f"A keyword has more than {_MAX_CHARACTERS} characters.")
    return FileKeywords(kept, tuple(ours), tuple(dict.fromkeys(problems))[:_MAX_PROBLEMS], is_xmp)


def _read(block: Block) -> Keywords:
    if block.kind != XMP:
        return Keywords(read_iptc(block.content), ())
    # Most packets have no keywords, and extended ones may have megabytes of depth maps. One that is cut short, or in
    # another encoding than UTF-8, lacks the end.
    if _END in block.content and not any(field in block.content for field in _FIELDS):
        return Keywords((), ())
    return read_keywords(block.content)
