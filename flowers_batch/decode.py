"""An image's bytes -> the 224x224 pixels that the network sees: fast, and equal to the reference.

The reference (`tensorflow_vgg.images.load_image`) crops the centre square and resizes it with scikit-image:
a Gaussian of sigma (factor-1)/2 against aliasing, cut at 4 sigma and mirrored at the border, then linear
interpolation between pixel centres. OpenCV does the same in float32, once it is told how to do the border.
Since all of it is linear and separable, a large side is one banded matrix, made once for each length: of its
many smoothed pixels only those are computed that the interpolation asks for.
"""

from __future__ import annotations

import ctypes
import io
import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pillow_heif
import simplejpeg
from numpy.typing import NDArray
from PIL import AvifImagePlugin, ExifTags, Image
from threadpoolctl import threadpool_limits

from flowers_batch.config import ArchiveConfig, first_line

SIDE = 224
# For each thread that decodes: more than most cameras take, and a fifth of the largest photo that is allowed.
PIXELS_A_THREAD = 32_000_000
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "HEIF", "AVIF")  # "JPEG" opens MPO too
# What the libraries say when a file is not broken.
_OUT_OF_MEMORY = re.compile("out of memory|allocating .* failed", re.IGNORECASE)
_TOO_LARGE = re.compile("too large|too much memory|exceed", re.IGNORECASE)
_UNSUPPORTED = re.compile("cannot handle|unknown pixel mode|(not|un)( yet)? ?(supported|implemented)", re.IGNORECASE)
_BITS, _PHOTOMETRIC, _PLANES, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 284, 322, 323  # tags of TIFF 6.0
_BAND = 64  # rows converted at a time: keeps memory small, and skips the resize matrix's zeros
_LARGEST_FILTERED = 850  # pixels of a side: of longer ones most smoothed pixels would not be used
_HASHED_SIDE = 32
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_SMALL_BYTES = 16 << 20  # a photo of five megapixels, or the largest of the network's passing arrays

Pixels = NDArray[Any]  # float32 or uint8 [..., 224, 224, 3], RGB in [0, 255]

Image.init()
# Each photo is decoded by one thread: the cores are busy with other photos.
pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


class DecodeError(Exception):
    """Bytes that give no picture.

    Attributes:
        reason: `not_an_image`, `truncated`, `too_large` or `unsupported`.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """A decoded photo.

    Attributes:
        pixels: [224, 224, 3], RGB in [0, 255], of the upright photo's centre square: float32, or what was asked for.
        width, height: Of the upright photo.
        phash: 64 bits that stay nearly the same when a photo is resized or recompressed.
    """

    pixels: Pixels
    width: int
    height: int
    phash: int


class PixelBudget:
    """Bounds the pixels that a process's threads decode at once, and by that its memory.

    Args:
        pixels: How many; a photo that has more is decoded alone.
    """

    def __init__(self, pixels: int):
        self._all = self._free = pixels
        self._door = threading.Lock()
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Waits until so many pixels are free, and holds them."""
        pixels = min(pixels, self._all)
        # Who waits inside keeps the door shut: small photos cannot overtake a huge one for ever.
        with self._door, self._freed:
            self._freed.wait_for(lambda: pixels <= self._free)
            self._free -= pixels
        try:
            yield
        finally:
            with self._freed:
                self._free += pixels
                self._freed.notify()


def prepare_process() -> None:
    """Readies a process for threads that decode a photo each: libraries start no more, and memory is kept for them."""
    threadpool_limits(1, "blas")
    cv2.setNumThreads(1)
    # glibc would keep for each thread what its largest photo took, eight times the memory of one; but to give back all
    # that is small too would have the kernel clear it for the next use, which for a photo takes as long as decoding.
    with suppress(AttributeError):  # of another C library
        c = ctypes.CDLL(None)
        c.mallopt(_M_MMAP_THRESHOLD, _SMALL_BYTES)
        c.mallopt(_M_TRIM_THRESHOLD, 2 * _SMALL_BYTES)


def decode(
    data: bytes,
    max_pixels: int = ArchiveConfig.max_pixels,
    budget: PixelBudget | None = None,
    place: Callable[[], Pixels] | None = None,
) -> Picture:
    """Decodes an image file's bytes: upright, alpha on white, first frame, 8-bit RGB.

    Args:
        data: The file's bytes.
        max_pixels: Photos with more are refused from their header, before anything is decoded.
        budget: What the photo's pixels are taken from while it is decoded.
        place: Gives where the resized pixels go, as `resize` takes it, once the photo is decoded.

    Raises:
        DecodeError: The bytes give no picture.
    """
    with _explained():
        image, pixels = _open(data, max_pixels)
        with budget.hold(pixels) if budget else nullcontext():
            photo = _upright(image, data)
            height, width = photo.shape[:2]
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            phash = perceptual_hash(photo)
            square = resize(photo[top : top + side, left : left + side], place and place())
            return Picture(square, width, height, phash)


def decode_photo(
    data: bytes,
    max_pixels: int = ArchiveConfig.max_pixels,
    at_least: int | None = None,
    budget: PixelBudget | None = None,
) -> NDArray[np.uint8]:
    """Decodes the whole photo, upright: uint8 [height, width, 3], RGB.

    Args:
        data: The file's bytes.
        max_pixels: Photos with more are refused from their header, before anything is decoded.
        at_least: A JPEG may come in an eighth, a quarter or half of its size if both sides keep so many pixels.
        budget: What the photo's pixels are taken from while it is decoded.

    Raises:
        DecodeError: The bytes give no picture.
    """
    with _explained():
        image, pixels = _open(data, max_pixels)
        with budget.hold(pixels) if budget else nullcontext():
            return _upright(image, data, at_least)


def resize(square: NDArray[np.uint8], out: Pixels | None = None) -> Pixels:
    """Resizes a square picture as scikit-image does with its defaults.

    Args:
        square: uint8 [side, side, 3].
        out: Where the pixels go: float32 or, for rounded ones, uint8 [224, 224, 3]; None makes them float32.

    Returns:
        [224, 224, 3] in [0, 255].
    """
    exact: Pixels = out if out is not None and out.dtype == np.float32 else np.empty((SIDE, SIDE, 3), np.float32)
    side = len(square)
    if side == SIDE:
        exact[:] = square
    elif side > _LARGEST_FILTERED:
        _resize_by_bands(square, exact)
    else:
        gaussian = _gaussian(side)
        if len(gaussian) == 1:
            smooth: NDArray[Any] = square.astype(np.float32)
        else:
            smooth = cv2.sepFilter2D(square, cv2.CV_32F, gaussian, gaussian, borderType=cv2.BORDER_REFLECT_101)
        if side > SIDE:
            cv2.resize(smooth, (SIDE, SIDE), dst=exact, interpolation=cv2.INTER_LINEAR)
        else:
            _enlarge(smooth, exact)
    if out is None or out is exact:
        return exact
    cv2.convertScaleAbs(exact, dst=out)  # rounds to the nearest
    return out


def _enlarge(square: NDArray[Any], out: NDArray[Any]) -> None:
    """Interpolates between the pixels of a square smaller than 224x224.

    OpenCV repeats the pixels at the border where scikit-image mirrors them, so what lies beyond them is made here.
    """
    side = len(square)
    centres = (np.arange(SIDE // 2) + 0.5) * (side / SIDE) - 0.5
    share = -centres[centres < 0].astype(np.float32)[:, None, None]  # of the second pixel from the border
    beyond, second = len(share), min(1, side - 1)

    def mend(enlarged: NDArray[Any], rows: NDArray[Any]) -> None:
        enlarged[:beyond] = rows[0] * (1 - share) + rows[second] * share
        enlarged[SIDE - beyond :] = (rows[-1] * (1 - share) + rows[-1 - second] * share)[::-1]

    tall = cv2.resize(square, (side, SIDE), interpolation=cv2.INTER_LINEAR)
    mend(tall, square)
    cv2.resize(tall, (SIDE, SIDE), dst=out, interpolation=cv2.INTER_LINEAR)
    mend(out.swapaxes(0, 1), tall.swapaxes(0, 1))


def _resize_by_bands(square: NDArray[np.uint8], out: Pixels) -> None:
    """Resizes a large square by two products with a banded matrix, which never holds all of it in float32."""
    side = len(square)
    rows = np.zeros((SIDE, side * 3), np.float32)
    for source, target, weights in _resize_bands(side):
        rows[target] += weights @ square[source].astype(np.float32, order="C").reshape(-1, side * 3)
    columns = rows.reshape(SIDE, side, 3).transpose(1, 0, 2).reshape(side, SIDE * 3)
    result = np.zeros((SIDE, SIDE * 3), np.float32)
    for source, target, weights in _resize_bands(side):
        result[target] += weights @ columns[source]
    np.minimum(result, 255, out=result)  # sums of rounded weights may exceed 1 in their last digit
    out[:] = result.reshape(SIDE, SIDE, 3).transpose(1, 0, 2)


@lru_cache(maxsize=1024)
def _gaussian(side: int) -> NDArray[np.float32]:
    """The weights of scikit-image's Gaussian against aliasing, when a side so long becomes 224."""
    sigma = max(0.0, (side / SIDE - 1) / 2)
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (sigma or 1)) ** 2)
    return (weights / weights.sum()).astype(np.float32)


@lru_cache(maxsize=256)
def _resize_bands(side: int) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """The resize of a side over 224 as the nonzero parts of its matrix float32 [224, side]: columns, rows, numbers."""
    gaussian = _gaussian(side).astype(np.float64)
    offsets = np.arange(len(gaussian)) - len(gaussian) // 2
    centres = (np.arange(SIDE) + 0.5) * (side / SIDE) - 0.5
    below = np.floor(centres).astype(np.int64)
    matrix = np.zeros((SIDE, side))
    for tap, weight in ((below, below + 1 - centres), (below + 1, centres - below)):
        columns = _mirror(tap[:, None] + offsets, side)
        np.add.at(matrix, (np.arange(SIDE)[:, None], columns), weight[:, None] * gaussian)
    used = matrix != 0
    first = np.minimum.accumulate(used.argmax(1)[::-1])[::-1]
    last = np.maximum.accumulate(side - used[:, ::-1].argmax(1))
    bands = []
    for start in range(0, side, _BAND):
        source = slice(start, min(start + _BAND, side))
        target = slice(np.searchsorted(last, source.start, "right"), np.searchsorted(first, source.stop))
        bands.append((source, target, matrix[target, source].astype(np.float32)))
    return bands


def _mirror(index: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Folds an index back into 0..side-1, without repeating the border: 2 1 | 0 1 2 3 | 2 1."""
    index = np.abs(index) % (2 * side - 2)
    return np.minimum(index, 2 * side - 2 - index)


def perceptual_hash(photo: NDArray[np.uint8]) -> int:
    """64 signs of the lowest frequencies of a grey 32x32 picture, against their median (the `pHash` of
    Zauner, 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions")."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    while min(grey.shape) >= 4 * _HASHED_SIDE:  # by halves, which is a tenth of the work
        height, width = grey.shape[0] // 2, grey.shape[1] // 2
        grey = cv2.resize(grey[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.resize(grey, (_HASHED_SIDE, _HASHED_SIDE), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
    # Of 64 numbers; `np.median` takes three times as long, in which no other thread can run.
    median = np.partition(frequencies, (31, 32))[31:33].mean()
    return int.from_bytes(np.packbits(frequencies > median).tobytes(), "big")


@contextmanager
def _explained() -> Iterator[None]:
    """Makes a `DecodeError` of whatever the libraries raise; broken files cause nearly every kind of exception."""
    try:
        yield
    except DecodeError:
        raise
    except Exception as error:
        message = first_line(error)
        # OpenCV has nothing else to complain of.
        if isinstance(error, MemoryError | cv2.error) or _OUT_OF_MEMORY.search(message):
            raise DecodeError("too_large", "It does not fit in memory.") from MemoryError(message)
        if _TOO_LARGE.search(message):
            raise DecodeError("too_large", message) from None
        if _UNSUPPORTED.search(message) or isinstance(error.__cause__, KeyError):  # a compression without a name
            raise DecodeError("unsupported", f"Images of this kind are not supported: {message}") from None
        raise DecodeError("truncated", f"The image is broken or cut short: {message}") from None


def _open(data: bytes, max_pixels: int) -> tuple[Image.Image, int]:
    """An image of which only the header was read, and how many pixels decoding it takes.

    `Image.open` would not tell why a file is refused, and has a limit of its own.
    """
    for name in _FORMATS:
        factory, accept = Image.OPEN[name]
        if accept and accept(data[:16]):
            image = factory(io.BytesIO(data), "")
            break
    else:
        raise DecodeError(
            "not_an_image", "No image format is recognised in the file." if data else "The file is empty."
        )
    tags = getattr(image, "tag_v2", {})  # of a TIFF
    tile = int(tags.get(_TILE_WIDTH, 0)), int(tags.get(_TILE_LENGTH, 0))  # may be larger than the picture
    width, height = max(image.size, tile, key=math.prod)
    if width * height > max_pixels:
        raise DecodeError("too_large", f"It has {width} x {height} pixels; {max_pixels} are allowed (--max-pixels).")
    bits = max(tags.get(_BITS, (8,)))
    plain = bits == 16 and tags.get(_PHOTOMETRIC) != 0 and tags.get(_PLANES) != 2
    if image.mode in ("I", "F") or (bits > 8 and not plain):
        # Pillow would take white for black or halves for wholes, or nothing says which value is white.
        raise DecodeError("unsupported", "Its values have more than 8 bits and are not plain 16-bit ones.")
    return image, width * height


def _upright(image: Image.Image, data: bytes, at_least: int | None = None) -> NDArray[np.uint8]:
    """The first frame, upright: uint8 [height, width, 3]."""
    photo = _rgb(image, data, at_least)
    # After the pixels: Pillow makes a TIFF upright itself while loading it, and drops its orientation.
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    image.close()  # frees what Pillow holds
    return _UPRIGHT[orientation](photo) if orientation in _UPRIGHT else photo


def _rgb(image: Image.Image, data: bytes, at_least: int | None) -> NDArray[np.uint8]:
    """The first frame as uint8 [height, width, 3], not yet upright."""
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        try:
            if at_least is None:
                return simplejpeg.decode_jpeg(data)
            return simplejpeg.decode_jpeg(data, min_height=at_least, min_width=at_least)
        except ValueError:
            # Warnings about harmless faults look like errors here; Pillow tells them apart.
            pass
    image.load()
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # of 16 bits, as its pixels were until they were loaded
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    photo = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height)))
        photo[top : top + _BAND] = _band_as_rgb(band)
    return photo


def _band_as_rgb(band: Image.Image) -> NDArray[np.uint8]:
    if band.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey at 255 instead of scaling it.
        deep = np.asarray(band)
        grey = (deep.astype(np.uint32) * 255 + 32767) // 65535
        grey[deep == band.info.get("transparency", -1)] = 255
        return grey.astype(np.uint8)[:, :, None]
    if band.has_transparency_data:
        band = band.convert("RGBA")
        band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
    return np.asarray(band.convert("RGB"))


# What makes each EXIF orientation upright (Exif 2.32, tag 0x0112).
_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: lambda photo: cv2.flip(photo, 1),
    3: lambda photo: cv2.rotate(photo, cv2.ROTATE_180),
    4: lambda photo: cv2.flip(photo, 0),
    5: cv2.transpose,
    6: lambda photo: cv2.rotate(photo, cv2.ROTATE_90_CLOCKWISE),
    7: lambda photo: cv2.flip(cv2.transpose(photo), -1),
    8: lambda photo: cv2.rotate(photo, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
