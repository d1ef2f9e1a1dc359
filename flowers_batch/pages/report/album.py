"""The thumbnails of a report."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from flowers_batch.pages.photos import Photos
from flowers_batch.pages.report.limits import PageLimits
from flowers_batch.pages.thumbnails import NoThumbnail, ThumbnailPool
from flowers_batch.sources.images import Image

_TAG_BYTES = 250  # of the HTML around a thumbnail


@dataclass
class Thumbnail:
    """A photo on the page.

    Attributes:
        path: Its key.
        caption: The text below it.
        image: A data URL; empty if the photo cannot be shown.
        failure: Why it cannot, as a sentence.
        fits: Whether there is room for it on the page.
    """

    path: str
    caption: str
    image: str = ""
    failure: str = ""
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
        """Make the thumbnails, and return whether all of them fit.

        Raises:
            InputError: A photo is not one of its source's.
            RunError: Photos cannot be decoded, whichever they are.
        """
        images = self._find_images()
        bytes_left = self.limits.picture_bytes
        with closing(self._make(images)) as made:
            for _, thumbnail in self._chosen:
                thumbnail.fits = bytes_left > 0
                if thumbnail.fits:
                    _show(thumbnail, next(made))
                    text_bytes = len((thumbnail.path + thumbnail.caption).encode())
                    bytes_left -= len(thumbnail.image) + text_bytes + _TAG_BYTES
        self._count_links(images)
        return all(thumbnail.fits for _, thumbnail in self._chosen)

    def _find_images(self) -> dict[Photos, dict[str, Image]]:
        paths = defaultdict[Photos, set[str]](set)
        for photos, thumbnail in self._chosen:
            paths[photos].add(thumbnail.path)
        return {photos: photos.find(names) for photos, names in paths.items()}

    def _make(self, images: dict[Photos, dict[str, Image]]) -> Generator[bytes | NoThumbnail]:
        """Yield what there is to show of each chosen photo; what is not asked for is not made."""
        with ExitStack() as opened:
            # By place: the photos of a model and of a run may be the same.
            pools: dict[tuple[str, str | None], ThumbnailPool] = {}
            for photos, chosen in groupby(self._chosen, itemgetter(0)):
                found = [images[photos].get(thumbnail.path) for _, thumbnail in chosen]
                if photos.source is None:
                    yield from (NoThumbnail(photos.unavailable) for _ in found)
                    continue
                place = photos.source.url, photos.source.root
                if place not in pools:
                    pools[place] = opened.enter_context(closing(ThumbnailPool(photos.source)))
                made = pools[place].make_all([image for image in found if image])
                yield from (next(made) if image else NoThumbnail("It is no longer listed.") for image in found)

    def _count_links(self, images: dict[Photos, dict[str, Image]]) -> None:
        for photos, found in images.items():
            links = 0 if photos.follows_links else sum(photos.are_links_outside([*found]))
            if links:
                self.notes.append(photos.sentence_on_links(f"{links:,} of {len(found):,} chosen"))


def _show(thumbnail: Thumbnail, made: bytes | NoThumbnail) -> None:
    if isinstance(made, NoThumbnail):
        thumbnail.failure = str(made)
    else:
        thumbnail.image = f"data:image/webp;base64,{base64.b64encode(made).decode()}"
