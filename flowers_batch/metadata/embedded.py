"""Keywords inside image files and sidecars, as decode workers find them: both may come from strangers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding.decode import Turns
from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.outputs import Described
from flowers_batch.json_values import check_shape, parse_json
from flowers_batch.metadata.blocks import XMP, Block, metadata_blocks
from flowers_batch.metadata.iptc import MalformedIptcError, read_iptc
from flowers_batch.metadata.xmp import OURS, PROPERTIES, Keywords, MalformedXmpError, read_keywords

_SLOT_BYTES = 1 << 16
_LENGTH = np.dtype("<u4")  # of the text in a slot, in front of it
_MAX_CHARACTERS = 255  # of a keyword, as of a label
_MAX_PROBLEMS = 3
# What packets with keywords have somewhere: names of properties, or our namespace.
_FIELDS = {name.rpartition("}")[2].encode() for name in (*PROPERTIES, f"}}{OURS}")}
_END = b"</rdf:RDF>"
_XML_STARTS = (b"<", b"\xef\xbb\xbf<", b"\xfe\xff", b"\xff\xfe")  # UTF-8 without and with its mark, UTF-16
_SHAPE = {"is_xmp": bool, "given": [str], "ours": [str], "problems": [str]}


@dataclass(frozen=True)
class FileKeywords:
    """The keywords in a file.

    Attributes:
        given, ours: As `xmp.Keywords` has them.
        problems: Why some of its metadata could not be read: sentences.
        is_xmp: Whether the file is an XMP packet, as sidecars are, not an image.
    """

    given: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    is_xmp: bool = False


def embedded_keywords(data: bytes) -> FileKeywords:
    """Return the keywords in the XMP and IPTC of an image file, or of a sidecar; what is broken counts as a problem.

    Args:
        data: The file's bytes, of any format: one that is unknown has no keywords.
    """
    if data.lstrip().startswith(_XML_STARTS):
        return _collected([Block(XMP, data)], is_xmp=True)
    return _collected(metadata_blocks(data))


def _collected(blocks: Iterable[Block], *, is_xmp: bool = False) -> FileKeywords:
    found, problems = [Keywords((), ())], list[str]()
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
    if long := [word for word in given if len(word) > _MAX_CHARACTERS]:
        problems.append(f"A keyword has {len(long[0])} characters; {_MAX_CHARACTERS} are allowed.")
    kept = tuple(word for word in given if word not in long)
    return FileKeywords(kept, tuple(ours), tuple(dict.fromkeys(problems))[:_MAX_PROBLEMS], is_xmp)


def _read(block: Block) -> Keywords:
    if block.kind != XMP:
        return Keywords(read_iptc(block.content), ())
    # Most packets have no keywords, and extended ones may have megabytes of depth maps. One that is cut short, or in
    # another encoding than UTF-8, lacks the end.
    if _END in block.content and not any(field in block.content for field in _FIELDS):
        return Keywords((), ())
    return read_keywords(block.content)


@dataclass(frozen=True)
class KeywordsOutput:
    """The keywords in an image file or a sidecar: see `decoding.outputs.Output`. A slot has them as JSON."""

    dtype: str = "uint8"
    shape: tuple[int, ...] = (_SLOT_BYTES,)

    def write(self, data: bytes, slot: NDArray[Any], max_pixels: int, turns: Turns | None) -> Described:
        """Put the keywords in a file into a slot; no pixel is decoded."""
        text = json.dumps(vars(embedded_keywords(data))).encode()
        start = _LENGTH.itemsize
        if start + len(text) > len(slot):
            raise DecodeError("too_large", f"Its keywords have {len(text)} bytes; {len(slot) - start} are allowed.")
        slot[:start] = np.array([len(text)], _LENGTH).view(np.uint8)
        slot[start : start + len(text)] = np.frombuffer(text, np.uint8)
        return Described(1, 1, None)  # the size of the picture is not looked at

    @staticmethod
    def read(slot: NDArray[np.uint8]) -> FileKeywords:
        """Return the keywords in a slot, of which anything may be wrong: a file may have taken the worker over."""
        start = _LENGTH.itemsize
        (length,) = slot[:start].view(_LENGTH)
        try:
            found = parse_json(slot[start : start + int(length)].tobytes())
            check_shape(found, _SHAPE)
        except (ValueError, TypeError):
            return FileKeywords(problems=("The process that reads it answers nonsense.",))
        given, ours, problems = (tuple(found[name]) for name in ("given", "ours", "problems"))
        return FileKeywords(given, ours, problems, found["is_xmp"])
