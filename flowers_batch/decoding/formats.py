"""Image formats: opening a file's header within limits, and its first frame as RGB."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from flowers_batch.decoding.errors import DecodeError, explain_errors
from flowers_batch.decoding.heif import referenced_pixels
from flowers_batch.decoding.jpeg import check_scans, decode_jpeg, strip_jpeg, with_end
from flowers_batch.decoding.jpeg_2000 import codestream_size, is_jpeg_2000
from flowers_batch.decoding.jpeg_xl import is_jpeg_xl, open_jpeg_xl
from flowers_batch.decoding.late_image import LateImage
from flowers_batch.decoding.metadata import strip_metadata
from flowers_batch.decoding.pixels import SIDE
from flowers_batch.decoding.raw import develop, is_raw, read_raw

Image.init()
# One thread per photo: the other cores decode other photos.
pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "JPEG2000")
# Brands in HEIF's `ftyp` box: those of a codec, and those that say nothing about it (ISO 23008-12, 23000-22).
_AVIF_BRANDS = {b"avif", b"avis", b"avio", b"MA1A", b"MA1B"}
_HEVC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"MiHA", b"MiHB", b"MiHE"}
_CONTAINER_BRANDS = {b"heif", b"mif1", b"mif2", b"mif3", b"msf1", b"miaf"}
_MAX_BRANDS_BYTES = 4096
_BAND_ROWS = 64  # rows converted at a time: keeps memory small
# Pixels of the tiles, the gain map and the other images that a HEIF is made of: per own pixel, and in any case.
_MAX_USED, _ANY_USED = 4, 64_000_000
_BITS, _PHOTOMETRIC, _PLANES, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 284, 322, 323  # tags of TIFF 6.0
_NO_TAGS: dict[int, tuple[int, ...]] = dict.fromkeys((_BITS, _PHOTOMETRIC, _PLANES, _TILE_WIDTH, _TILE_LENGTH), ())


@dataclass(frozen=True)
class OpenImage:
    """An image whose header was read, but which is not decoded yet.

    Attributes:
        image: Pillow's image.
        data: The file's bytes.
        orientation: As in EXIF.
        pixels: How many pixels decoding takes.
        full_size: Width and height of the upright photo, if fewer pixels are decoded: a RAW file's preview is smaller.
    """

    image: Image.Image
    data: bytes
    orientation: int
    pixels: int
    full_size: tuple[int, int] | None = None


def open_image(data: bytes, max_pixels: int) -> OpenImage:
    """Read an image's header.

    Raises:
        DecodeError: It is not an image, too large or of an unsupported kind.
    """
    return _open_raw(data, max_pixels) if is_raw(data) else _open(data, max_pixels)


def _open_raw(data: bytes, max_pixels: int) -> OpenImage:
    """Read a RAW file's preview's header; if that is too small for the network, the file is developed."""
    raw = read_raw(data)
    full_size = raw.width, raw.height
    if raw.preview:
        opened = _open(raw.preview, max_pixels)
        width, height = opened.image.size
        if min(width, height) >= SIDE:
            larger = raw.width * raw.height > width * height
            turned = raw.preview_orientation(width, height)
            return replace(opened, orientation=turned, full_size=full_size if larger else None)
    _check_pixels(*full_size, max_pixels)
    image = LateImage("RAW", full_size, partial(develop, data))
    return OpenImage(image, data, 1, raw.width * raw.height, full_size)


def _open(data: bytes, max_pixels: int) -> OpenImage:
    """Read the header of an image that is no RAW file.

    `Image.open` does not say why a file is refused, and has a limit of its own.
    """
    stripped, orientation = strip_metadata(data)
    coded_size = codestream_size(stripped) if is_jpeg_2000(data) else (0, 0)
    image = open_jpeg_xl(stripped) if is_jpeg_xl(data) else _first_that_opens(stripped)
    tags = _tiff_numbers(image) if isinstance(image, TiffImageFile) else _NO_TAGS
    width, height = max(image.size, coded_size, key=math.prod)
    if any(tags[_TILE_WIDTH]) and any(tags[_TILE_LENGTH]):  # those at the border may be far larger than the picture
        width = _padded(width, max(tags[_TILE_WIDTH]))
        height = _padded(height, max(tags[_TILE_LENGTH]))
    _check_pixels(width, height, max_pixels)
    bits = max(tags[_BITS], default=8)
    plain = bits == 16 and 0 not in tags[_PHOTOMETRIC] and 2 not in tags[_PLANES]
    if image.mode in ("I", "F") or (bits > 8 and not plain):
        # Pillow would confuse black with white or halve the values, or the file does not say which value is white.
        raise DecodeError("unsupported", "Its values have more than 8 bits and are not plain 16-bit ones.")
    if isinstance(image, JpegImageFile):
        check_scans(image, stripped, data)
    if image.format in ("HEIF", "AVIF") and (used := referenced_pixels(data)) > _MAX_USED * width * height + _ANY_USED:
        raise DecodeError(
            "unsupported", f"It is made of images of {used} pixels, far more than its {width} x {height}."
        )
    return OpenImage(image, data, orientation, width * height)


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise DecodeError("too_large", f"It has {width} x {height} pixels; {max_pixels} are allowed (max_pixels).")


def _tiff_numbers(image: TiffImageFile) -> dict[int, tuple[int, ...]]:
    """Return the numbers of a TIFF's tags that decide whether it is decoded: Pillow parses them only now.

    Raises:
        DecodeError: A tag holds something else.
    """
    tags = dict(_NO_TAGS)
    for tag in tags:
        with explain_errors():
            values = image.tag_v2.get(tag, ())
        tags[tag] = values if isinstance(values, tuple) else (values,)
        if not all(isinstance(number, int) for number in tags[tag]):
            raise DecodeError("truncated", f"The image is broken: its tag {tag} holds no whole numbers.")
    return tags


def _padded(pixels: int, tile: int) -> int:
    """Return how many pixels of a side are decoded in whole tiles."""
    return -(-pixels // tile) * tile


def _first_that_opens(data: bytes) -> Image.Image:
    """Return the image as the first of its possible formats opens it."""
    formats = _possible_formats(data)
    if not formats:
        raise DecodeError(
            "not_an_image", "No image format is recognised in the file." if data else "The file is empty."
        )
    errors = []
    for name in formats:
        try:
            return _open_as(name, data)
        except DecodeError as error:
            errors.append(error)
    raise errors[0]


def _open_as(name: str, data: bytes) -> Image.Image:
    factory, _ = Image.OPEN[name]
    with explain_errors():
        return factory(io.BytesIO(data), "")


def _possible_formats(data: bytes) -> list[str]:
    """Return Pillow's names of the formats that a file may have by its first bytes, the most likely one first."""
    if data[4:8] != b"ftyp":
        return [name for name in _FORMATS if (accept := Image.OPEN[name][1]) and accept(data[:16])]
    # Pillow looks at the major brand alone, which may be that of the container.
    end = min(int.from_bytes(data[:4], "big"), _MAX_BRANDS_BYTES)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    formats = ["AVIF"] if brands & _AVIF_BRANDS else []
    if brands & _HEVC_BRANDS or (brands & _CONTAINER_BRANDS and not formats):
        formats.append("HEIF")
    return formats


def first_frame(
    opened: OpenImage, min_side: int | None = None, *, reuse: bool = False
) -> tuple[NDArray[np.uint8], int]:
    """Return the first frame, decoded but not upright yet: uint8 [height, width, 3], RGB; and its orientation.

    Args:
        opened: The image.
        min_side, reuse: As for `decode_jpeg`; other formats are decoded in full size, into memory of their own.
    """
    image, orientation = opened.image, opened.orientation
    photo = _rgb_pixels(opened, min_side, reuse)
    if image.format == "AVIF":  # Pillow states the container's orientation, and applies it in HEIF alone
        with explain_errors():
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    image.close()  # frees what Pillow holds
    return photo, orientation


def _rgb_pixels(opened: OpenImage, min_side: int | None, reuse: bool) -> NDArray[np.uint8]:
    """Decode the first frame as uint8 [height, width, 3], not yet upright."""
    image, data = opened.image, opened.data
    if image.format == "JPEG":
        if image.mode == "CMYK":
            data = with_end(data)
        elif (photo := decode_jpeg(data, image.size, min_side, reuse)) is not None:
            return photo
        image = _open_as("JPEG", strip_jpeg(data))  # Pillow distinguishes warnings from errors
    with explain_errors():
        image.load()
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # of 16 bits, as the pixels were before `load`
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    photo = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _BAND_ROWS):
        photo[top : top + _BAND_ROWS] = _band_as_rgb(image, top, clear)
    return photo


def _band_as_rgb(image: Image.Image, top: int, clear: Any) -> NDArray[np.uint8]:
    """Return some rows as uint8 [rows, width, 3], or of 16-bit grey [rows, width, 1]."""
    with explain_errors():
        band = image.crop((0, top, image.width, min(top + _BAND_ROWS, image.height)))
        values = np.asarray(band if band.mode.startswith("I;16") else _on_white(band))
    return values if values.dtype == np.uint8 else _grey_of_16_bits(values, clear)


def _on_white(image: Image.Image) -> Image.Image:
    """Return an image as Pillow's RGB, composited on white where it is transparent."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _grey_of_16_bits(deep: NDArray[np.uint16], clear: Any) -> NDArray[np.uint8]:
    """Return grey values as uint8 [height, width, 1], white where they equal `clear`: Pillow would clip them at 255."""
    grey = (deep.astype(np.uint32) * 255 + 32767) // 65535
    if isinstance(clear, int):
        grey[deep == clear] = 255
    return grey.astype(np.uint8)[:, :, None]
