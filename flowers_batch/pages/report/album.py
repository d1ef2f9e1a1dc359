"""The thumbnails of a report."""

from __future__ import annotations

import base64
from collections import defaultdict
from dataclasses import dataclass

from flowers_batch.decoding.errors import DecodeError
from flowers_batch.errors import RunError
from flowers_batch.pages.report.limits import PageLimits
from flowers_batch.pages.thumbnails import Photos
from flowers_batch.sources.images import Image
from flowers_batch.sources.reading import ReadError

_TAG_BYTES = 250  # of the HTML around a thumbnail


@dataclass
class Thumbnail:
    """A photo on the page.

    Attributes:
        path: Its key.
        caption: The text below it.
        image: A data URL; empty if the photo cannot be read.
        fits: Whether there is room for it on the page.
    """

    path: str
    caption: str
    image: str = ""
    fits: bool = True


class Album:
    """Collects the photos that the page shows, then makes thumbnails of as many as fit, in the order of collection.

    Args:
        limits: Limits of the page.

    Attributes:
        limits: The same.
        notes: How many photos are not shown since they are links to files outside the photos' folder; after `fill`.
    """

    def __init__(self, limits: PageLimits) -> None:
        self.limits, self.notes = limits, list[str]()
        self._chosen: list[tuple[Photos, Thumbnail]] = []

    def add(self, photos: Photos, captions: dict[str, str]) -> list[Thumbnail]:
        """Return thumbnails of photos, which stay empty until `fill` is called.

        Args:
            photos: The photos of the run.
            captions: The captions of the photos to show, by path.
        """
        thumbnails = [Thumbnail(path, caption) for path, caption in captions.items()]
        self._chosen += [(photos, thumbnail) for thumbnail in thumbnails]
        return thumbnails

    def fill(self) -> bool:
        """Make the thumbnails, and return whether all of them fit."""
        paths = defaultdict[Photos, set[str]](set)
        for photos, thumbnail in self._chosen:
            paths[photos].add(thumbnail.path)
        images = {photos: photos.find(names) for photos, names in paths.items()}
        bytes_left = self.limits.picture_bytes
        for photos, thumbnail in self._chosen:
            thumbnail.fits = bytes_left > 0
            if thumbnail.fits:
                thumbnail.image = _data_url(photos, images[photos].get(thumbnail.path))
                text_bytes = len((thumbnail.path + thumbnail.caption).encode())
                bytes_left -= len(thumbnail.image) + text_bytes + _TAG_BYTES
        self._count_links(images)
        return all(thumbnail.fits for _, thumbnail in self._chosen)

    def _count_links(self, images: dict[Photos, dict[str, Image]]) -> None:
        for photos, found in images.items():
            links = 0 if photos.follows_links else sum(map(photos.is_link_outside, found.values()))
            if links:
                self.notes.append(photos.sentence_on_links(f"{links:,} of {len(found):,} chosen"))


def _data_url(photos: Photos, image: Image | None) -> str:
    if image is None:
        return ""
    try:
        content = photos.thumbnail(image)
    except (ReadError, DecodeError, RunError):  # RunError: the folder no longer exists
        return ""
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"
