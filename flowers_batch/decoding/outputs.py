"""What a decode worker makes of an image, and where it puts it: a slot of the shared memory.

The parent imports this, too, and decodes nothing: image libraries are imported where they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from flowers_batch.config import EXACT
from flowers_batch.decoding.errors import DecodeError, explain_lack_of_memory
from flowers_batch.decoding.pixels import SIDE
from flowers_batch.decoding.sized_bytes import HEAD_BYTES, put_bytes, take_bytes

if TYPE_CHECKING:
    from flowers_batch.decoding.decode_photo import Turns

_PIXELS_BYTES = SIDE * SIDE * 3


class Described(NamedTuple):
    """What is known of a photo once it is decoded.

    Attributes:
        width, height: Of the upright photo, in pixels.
        phash: Its perceptual hash; None where that was not computed.
    """

    width: int
    height: int
    phash: int | None


class Output(Protocol):
    """What a decode worker makes of an image.

    Attributes:
        dtype, shape: Of a slot.
    """

    @property
    def dtype(self) -> str: ...  # noqa: D102

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def load(self) -> None:
        """Import what `write` needs: called once, so that all workers of a pool share it."""

    def write(self, data: bytes, slot: NDArray[Any], max_pixels: int, turns: Turns | None) -> Described:
        """Decode an image file's bytes, and put the result into a slot.

        Raises:
            DecodeError: The bytes are not a picture that can be decoded.
        """


@dataclass(frozen=True)
class SquarePixels:
    """The pixels that the network sees: [224, 224, 3], RGB in [0, 255], of the upright photo's centre square.

    Attributes:
        dtype: `float32`, or `uint8` for rounded pixels.
        mode: `exact`, or `fast`: see `decode`.
    """

    dtype: str
    mode: str = EXACT

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a slot."""
        return SIDE, SIDE, 3

    def load(self) -> None:
        """Import what `write` needs, and compile it."""
        from flowers_batch.decoding import decode  # noqa: F401

    def write(self, data: bytes, slot: NDArray[Any], max_pixels: int, turns: Turns | None) -> Described:
        """Decode an image file's bytes, and put its pixels into a slot: see `Output`."""
        from flowers_batch.decoding.decode import decode

        picture = decode(data, max_pixels, turns, lambda: slot, self.mode)
        return Described(picture.width, picture.height, picture.phash)


@dataclass(frozen=True)
class ShrunkPhoto:
    """The pixels that a network sees, rounded, and behind them a thumbnail if one is wanted.

    Attributes:
        mode: `exact`, or `fast`: see `decode`.
        thumbnail: What makes the thumbnail.
    """

    mode: str = EXACT
    thumbnail: WebpThumbnail | None = None
    dtype: str = "uint8"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a slot: bytes."""
        return (_PIXELS_BYTES + (self.thumbnail.shape[0] if self.thumbnail else 0),)

    def load(self) -> None:
        """Import what `write` needs: see `SquarePixels`."""
        SquarePixels("uint8").load()

    def write(self, data: bytes, slot: NDArray[Any], max_pixels: int, turns: Turns | None) -> Described:
        """Decode an image file's bytes, and put its pixels and its thumbnail into a slot: see `Output`."""
        pixels, rest = slot[:_PIXELS_BYTES], slot[_PIXELS_BYTES:]
        found = SquarePixels("uint8", self.mode).write(data, pixels.reshape(SIDE, SIDE, 3), max_pixels, turns)
        if self.thumbnail:
            self.thumbnail.write(data, rest, max_pixels, turns)
        return found


@dataclass(frozen=True)
class WebpThumbnail:
    """An upright thumbnail as a WebP file, with its length in front.

    Attributes:
        long_edge: The most pixels that its longer side has.
        quality: 0 to 100.
    """

    long_edge: int
    quality: int = 70
    dtype: str = "uint8"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a slot: WebP never needs more bytes than the pixels."""
        return (HEAD_BYTES + 1024 + 3 * self.long_edge**2,)

    def load(self) -> None:
        """Import what `write` needs."""
        from flowers_batch.decoding import decode_photo  # noqa: F401

    def write(self, data: bytes, slot: NDArray[Any], max_pixels: int, turns: Turns | None) -> Described:
        """Decode an image file's bytes, and put a thumbnail into a slot: see `Output`."""
        import cv2

        from flowers_batch.decoding.decode_photo import decode_photo

        photo = decode_photo(data, max_pixels, self.long_edge, turns)
        height, width = photo.shape[:2]
        with explain_lack_of_memory():
            scale = min(1.0, self.long_edge / max(height, width))
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
            done, file = cv2.imencode(
                ".webp", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, self.quality]
            )
        if not done or HEAD_BYTES + len(file) > len(slot):
            raise DecodeError("unsupported", "Its thumbnail cannot be encoded.")
        put_bytes(slot, file)
        return Described(width, height, None)

    @staticmethod
    def read(slot: NDArray[np.uint8]) -> bytes:
        """Return the WebP file in a slot."""
        return take_bytes(slot)


def bitmap(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels as a BMP file, which is written and decoded in no time.

    Args:
        pixels: uint8 [height, width, 3], RGB.
    """
    import cv2

    return cv2.imencode(".bmp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
