"""An image's bytes -> the 224x224 pixels that the network sees: fast, and equal to the reference.

The reference (`tensorflow_vgg.images.load_image`) crops the centre square and resizes it with scikit-image:
a Gaussian of sigma (factor-1)/2 against aliasing, cut at 4 sigma and mirrored at the border, then linear
interpolation between pixel centres. All of it is linear and separable, so here it is one banded matrix a
side, made once for each side's length and multiplied from both sides, in float32 and without rounding.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import pillow_heif
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

SIDE = 224
MAX_PIXELS = 178_000_000  # a little below where Pillow refuses
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "HEIF", "AVIF")  # "JPEG" opens MPO too
_BAND = 64  # source rows turned into float32 at a time: keeps memory small, and skips the matrix's zeros

pillow_heif.register_heif_opener()
# The limit is checked below, from the header, before anything is decoded.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


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
        pixels: float32 [224, 224, 3], RGB in [0, 255], of the upright photo's centre square.
        width, height: Of the upright photo.
        phash: 64 bits that stay nearly the same when a photo is resized or recompressed.
    """

    pixels: NDArray[np.float32]
    width: int
    height: int
    phash: int


def decode(data: bytes) -> Picture:
    """Decodes an image file's bytes: upright, alpha on white, first frame, 8-bit RGB.

    Raises:
        DecodeError: The bytes give no picture.
    """
    photo = decode_photo(data)
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    pixels = resize(photo[top : top + side, left : left + side])
    return Picture(pixels, width, height, perceptual_hash(photo))


def decode_photo(data: bytes) -> NDArray[np.uint8]:
    """Decodes the whole photo, upright: uint8 [height, width, 3], RGB.

    Raises:
        DecodeError: The bytes give no picture.
    """
    if not data:
        raise DecodeError("not_an_image", "The file is empty.")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            photo = _rgb(image, data)
            # After the pixels: Pillow makes a TIFF upright itself while loading it, and drops its orientation.
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            return np.ascontiguousarray(_UPRIGHT.get(orientation, _as_it_is)(photo))
    except DecodeError:
        raise
    except UnidentifiedImageError:
        raise DecodeError("not_an_image", "No image format is recognised in the file.") from None
    except Image.DecompressionBombError:
        raise DecodeError("too_large", f"It has more than the {MAX_PIXELS} pixels that are allowed.") from None
    except MemoryError:
        raise DecodeError("too_large", "It does not fit in memory.") from None
    except Exception as error:  # the libraries tell of broken files by nearly every kind of exception
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DecodeError("truncated", f"The image is broken or cut short: {reason}") from None


def resize(square: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Resizes a square picture as scikit-image does with its defaults.

    Args:
        square: uint8 [side, side, 3].

    Returns:
        float32 [224, 224, 3] in [0, 255].
    """
    side = len(square)
    if side == SIDE:
        return square.astype(np.float32)
    matrix, reach = _resize_matrix(side)
    rows = np.zeros((SIDE, side * 3), np.float32)
    for start in range(0, side, _BAND):
        stop = min(start + _BAND, side)
        first, last = np.searchsorted(reach[1], start, "right"), np.searchsorted(reach[0], stop)
        band = square[start:stop].reshape(stop - start, side * 3).astype(np.float32)
        rows[first:last] += matrix[first:last, start:stop] @ band
    columns = rows.reshape(SIDE, side, 3).transpose(1, 0, 2).reshape(side, SIDE * 3)
    result = np.zeros((SIDE, SIDE * 3), np.float32)
    for start in range(0, side, _BAND):
        stop = min(start + _BAND, side)
        first, last = np.searchsorted(reach[1], start, "right"), np.searchsorted(reach[0], stop)
        result[first:last] += matrix[first:last, start:stop] @ columns[start:stop]
    np.minimum(result, 255, out=result)  # sums of rounded weights may exceed 1 in their last digit
    return np.ascontiguousarray(result.reshape(SIDE, SIDE, 3).transpose(1, 0, 2))


@lru_cache(maxsize=64)
def _resize_matrix(side: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The resize of one side as a matrix float32 [224, side], and int64 [2, 224]: each row's first nonzero
    column and the one after its last, both growing."""
    factor = side / SIDE
    sigma = max(0.0, (factor - 1) / 2)
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    gaussian = np.exp(-0.5 * (offsets / sigma) ** 2) if radius else np.ones(1)
    gaussian /= gaussian.sum()
    centres = (np.arange(SIDE) + 0.5) * factor - 0.5
    below = np.floor(centres).astype(np.int64)
    matrix = np.zeros((SIDE, side))
    rows = np.arange(SIDE)[:, None]
    for tap, weight in ((below, below + 1 - centres), (below + 1, centres - below)):
        # The interpolation mirrors at the border of the smoothed picture, the Gaussian at that of the photo.
        columns = _mirror(_mirror(tap, side)[:, None] + offsets, side)
        np.add.at(matrix, (rows, columns), weight[:, None] * gaussian)
    used = matrix != 0
    first = np.minimum.accumulate(used.argmax(1)[::-1])[::-1]
    last = np.maximum.accumulate(side - used[:, ::-1].argmax(1))
    return matrix.astype(np.float32), np.stack([first, last])


def _mirror(index: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Folds an index back into 0..side-1, without repeating the border: 2 1 | 0 1 2 3 | 2 1."""
    if side == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * side - 2)
    return np.minimum(index, 2 * side - 2 - index)


def perceptual_hash(photo: NDArray[np.uint8]) -> int:
    """64 signs of the lowest frequencies of a grey 32x32 picture, against their median (the `pHash` of
    Zauner, 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions")."""
    small = cv2.resize(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small.astype(np.float32))[:8, :8].ravel()
    return int.from_bytes(np.packbits(frequencies > np.median(frequencies)).tobytes(), "big")


def _rgb(image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    """The picture's first frame as uint8 [height, width, 3], not yet upright."""
    if image.format == "JPEG" and image.mode in ("RGB", "L"):
        try:
            return simplejpeg.decode_jpeg(data)
        except ValueError:
            # Warnings about harmless faults look like errors here; Pillow tells them apart.
            pass
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey at 255 instead of scaling it.
        grey = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise DecodeError("unsupported", "Its values have 32 bits, and nothing says which of them is white.")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _as_it_is(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return photo


# What makes each EXIF orientation upright (Exif 2.32, tag 0x0112).
_UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda photo: photo[:, ::-1],
    3: lambda photo: photo[::-1, ::-1],
    4: lambda photo: photo[::-1],
    5: lambda photo: photo.transpose(1, 0, 2),
    6: lambda photo: photo[::-1].transpose(1, 0, 2),
    7: lambda photo: photo[::-1, ::-1].transpose(1, 0, 2),
    8: lambda photo: photo[:, ::-1].transpose(1, 0, 2),
}
