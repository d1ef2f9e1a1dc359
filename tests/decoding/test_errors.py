"""Only the libraries' errors, and lack of memory, are a photo's fault."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import NoReturn

import cv2
import numpy as np
import pytest
from helpers import encoded, random_pixels
from image_files import FORMATS, blocks, little_memory
from PIL import Image

from flowers_batch.decoding import decode as decoding
from flowers_batch.decoding import formats, jpeg, upright
from flowers_batch.decoding.decode import decode
from flowers_batch.decoding.errors import DecodeError, explain_lack_of_memory

OWN_STEPS = [
    (formats, "strip_metadata", "PNG"),
    (formats, "_possible_formats", "PNG"),
    (formats, "check_scans", "JPEG"),
    (formats, "referenced_pixels", "HEIF"),
    (formats, "_grey_of_16_bits", "PNG"),
    (jpeg, "only_end_is_missing", "JPEG"),
    (decoding, "PerceptualHash", "PNG"),
    (decoding, "resize", "PNG"),
]
LIBRARY_CALLS = [
    (jpeg.simplejpeg, "decode_jpeg", "JPEG"),
    (Image.Image, "load", "PNG"),
    (Image.Image, "convert", "PNG"),
    (Image.Image, "getexif", "AVIF"),
]


def raising(error: Exception) -> Callable[..., NoReturn]:
    def step(*_: object, **__: object) -> NoReturn:
        raise error

    return step


def photo(step: str, kind: str) -> bytes:
    """A photo that needs the step."""
    if step == "_grey_of_16_bits":
        return encoded(Image.fromarray(random_pixels(20, 30, channels=1).astype(np.uint16)))
    data = encoded(blocks(), kind, **FORMATS[kind][0])
    return data[:-2] if step == "only_end_is_missing" else data


@pytest.mark.parametrize(("module", "step", "kind"), OWN_STEPS)
@pytest.mark.parametrize("fault", [ValueError("A fault."), KeyError("A fault."), cv2.error("A fault.")])
def test_fault_of_our_own_is_not_the_photos(monkeypatch, module: ModuleType, step, kind, fault):
    data = photo(step, kind)
    monkeypatch.setattr(module, step, raising(fault))
    with pytest.raises(type(fault)) as raised:
        decode(data)
    assert raised.value is fault


def test_fault_while_a_photo_is_turned_is_not_the_photos(monkeypatch):
    fault = IndexError("A fault.")
    monkeypatch.setitem(upright._UPRIGHT, 6, raising(fault))
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.raises(IndexError) as raised:
        decode(encoded(blocks(), exif=exif.tobytes()))
    assert raised.value is fault


def test_fault_of_the_callers_array_is_not_the_photos():
    fault = RuntimeError("The batch is closed.")
    with pytest.raises(RuntimeError) as raised:
        decode(encoded(blocks()), allocate=raising(fault))
    assert raised.value is fault


@pytest.mark.parametrize(("module", "call", "kind"), LIBRARY_CALLS)
def test_any_error_of_a_library_is_the_photos(monkeypatch, module, call, kind):
    data = photo(call, kind)
    monkeypatch.setattr(module, call, raising(IndexError("index out of range")))
    with pytest.raises(DecodeError) as raised:
        decode(data)
    assert raised.value.reason == "truncated"


@pytest.mark.parametrize(("module", "step", "kind"), [*OWN_STEPS, *LIBRARY_CALLS])
def test_lack_of_memory_anywhere_is_too_large(monkeypatch, module, step, kind):
    data = photo(step, kind)
    monkeypatch.setattr(module, step, raising(MemoryError()))
    with pytest.raises(DecodeError) as raised:
        decode(data)
    assert (raised.value.reason, str(raised.value)) == ("too_large", "It does not fit in memory.")
    assert isinstance(raised.value.__cause__, MemoryError)


@pytest.mark.parametrize("library", ["NumPy", "OpenCV", "Python"])
def test_lack_of_memory_is_recognised_whatever_reports_it(library):
    photo = np.zeros((30_000, 30_000), np.uint8)  # far more than what other threads may give back meanwhile
    allocate = {"NumPy": photo.copy, "OpenCV": lambda: cv2.flip(photo, 1), "Python": lambda: bytes(photo.size)}[library]
    with little_memory(), pytest.raises(DecodeError, match="It does not fit in memory"), explain_lack_of_memory():
        allocate()
