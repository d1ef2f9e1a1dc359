"""A source and an output for tests of decode workers, whose images may begin with Python code that the worker runs."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from flowers_batch.decoding import groups
from flowers_batch.decoding.decode_photo import Turns
from flowers_batch.decoding.outputs import Described, SquarePixels
from flowers_batch.sources.images import Image
from flowers_batch.storage.folder import Folder

READ, DECODE = b"READ ", b"DECODE "  # when the code runs
_END = b"\0"


def script(code: str, rest: bytes = b"", when: bytes = DECODE) -> bytes:
    """Return an image's bytes: code, and what is read or decoded once that has run."""
    return when + code.encode() + _END + rest


def tried(file: str) -> None:
    """Leave a trace of a try, which takes no bytes."""
    Path(f"{file}-{time.monotonic_ns()}").touch()


def tries_of(file: Path) -> int:
    """Return how often something was tried."""
    return len(list(file.parent.glob(f"{file.name}-*")))


def answer_with(make: Any) -> None:
    """Have this worker send something else than its answers."""
    groups.Answer.encode = make  # type: ignore[method-assign]


def _run(when: bytes, data: bytes) -> bytes:
    if not data.startswith(when):
        return data
    code, _, rest = data.removeprefix(when).partition(_END)
    names = {"os": os, "signal": signal, "time": time, "threading": threading, "groups": groups, "pa": groups.pa}
    exec(code.decode(), names | {"tried": tried, "answer_with": answer_with})
    return rest


@dataclass(frozen=True)
class ScriptedSource:
    """Images in a folder."""

    folder: Folder
    may_read_stores: bool = False

    def read(self, image: Image) -> bytes:
        """Return the bytes of an image, and run code first that is meant for reading."""
        return _run(READ, Path(self.folder.path, image.path).read_bytes())


class ScriptedPixels(SquarePixels):
    """The pixels of images; code that is meant for decoding runs first."""

    def write(self, data: bytes, slot: NDArray[Any], max_pixels: int, turns: Turns | None) -> Described:
        """Decode an image."""
        return super().write(_run(DECODE, data), slot, max_pixels, turns)
