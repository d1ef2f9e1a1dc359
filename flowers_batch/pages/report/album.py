"""Pictures for the report, as many as can be mailed."""

from __future__ import annotations

import base64
from collections import defaultdict
from dataclasses import dataclass

from flowers_batch.decoding.formats import DecodeError
from flowers_batch.errors import RunError
from flowers_batch.pages.thumbnails import Photos
from flowers_batch.sources.images import Image
from flowers_batch.sources.reading import ReadError

_PICTURES_BYTES = 3_200_000  # of all pictures and what is written below them, so that the page can be mailed
_ITEM_BYTES = 250  # of a picture's tags
_SHOWN = 6  # photos of each kind
_CLASSES = 40  # with photos, and in the matrix: more do not fit; the tables have more


@dataclass
class Thumbnail:
    """A photo on the page.

    Attributes:
        path: Its key.
        caption: What is said of it.
        image: A data URL; empty where there is none.
        fits: Whether the page has room for it.
    """

    path: str
    caption: str
    image: str = ""
    fits: bool = True


class _Album:
    """Pictures for the page: first all are chosen, then as many are made as can be mailed, in the order of choice."""

    def __init__(self) -> None:
        self._chosen: list[tuple[Photos, Thumbnail]] = []

    def pictures(self, photos: Photos, captions: dict[str, str]) -> list[Thumbnail]:
        """Pictures of photos, from their paths and captions; they are empty until `fill` is called."""
        pictures = [Thumbnail(path, caption) for path, caption in captions.items()]
        self._chosen += [(photos, picture) for picture in pictures]
        return pictures

    def fill(self) -> bool:
        """Makes the pictures; tells whether all had room."""
        paths = defaultdict[Photos, set[str]](set)
        for photos, picture in self._chosen:
            paths[photos].add(picture.path)
        images = {photos: photos.find(names) for photos, names in paths.items()}
        left = _PICTURES_BYTES
        for photos, picture in self._chosen:
            picture.fits = left > 0
            if picture.fits:
                picture.image = _data_url(photos, images[photos][picture.path])
                left -= len(picture.image) + len((picture.path + picture.caption).encode()) + _ITEM_BYTES
        return all(picture.fits for _, picture in self._chosen)


def _data_url(photos: Photos, image: Image) -> str:
    try:
        content = photos.thumbnail(image)
    except (ReadError, DecodeError, RunError):  # RunError: the folder has vanished
        return ""
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"
