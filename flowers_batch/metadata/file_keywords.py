"""The keywords in a file, and how a decode worker hands them over."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.outputs import Described
from flowers_batch.decoding.sized_bytes import HEAD_BYTES, put_bytes, take_bytes
from flowers_batch.json_values import check_shape, parse_json

if TYPE_CHECKING:
    from flowers_batch.decoding.decode_photo import Turns

_SLOT_BYTES = 1 << 16
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


@dataclass(frozen=True)
class KeywordsOutput:
    """The keywords in an image file or a sidecar: see `decoding.outputs.Output`. A slot has them as JSON."""

    dtype: str = "uint8"
    shape: tuple[int, ...] = (_SLOT_BYTES,)

    def load(self) -> None:
        """Import what `write` needs."""
        from flowers_batch.metadata import embedded  # noqa: F401

    def write(self, data: bytes, slot: NDArray[Any], max_pixels: int, turns: Turns | None) -> Described:
        """Put the keywords in a file into a slot; no pixel is decoded."""
        from flowers_batch.metadata.embedded import embedded_keywords  # with the image libraries

        text = json.dumps(vars(embedded_keywords(data))).encode()
        allowed = len(slot) - HEAD_BYTES
        if len(text) > allowed:
            raise DecodeError("too_large", f"Its keywords have {len(text)} bytes; {allowed} are allowed.")
        put_bytes(slot, np.frombuffer(text, np.uint8))
        return Described(1, 1, None)  # the size of the picture is not looked at

    @staticmethod
    def read(slot: NDArray[np.uint8]) -> FileKeywords:
        """Return the keywords in a slot, of which anything may be wrong: a file may have taken the worker over."""
        try:
            found = parse_json(take_bytes(slot))
            check_shape(found, _SHAPE)
        except (ValueError, TypeError):
            return FileKeywords(problems=("The process that reads it answers nonsense.",))
        given, ours, problems = (tuple(found[name]) for name in ("given", "ours", "problems"))
        return FileKeywords(given, ours, problems, found["is_xmp"])
