"""Thumbnails of a run's photos."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cached_property

import cv2
import pyarrow as pa

from flowers_batch.dataset.manifest import Manifest, find_images, read_manifest, read_rows
from flowers_batch.dataset.run_folder import read_job
from flowers_batch.decoding.decode import decode_photo
from flowers_batch.decoding.errors import DecodeError
from flowers_batch.decoding.process_limits import PixelBudget
from flowers_batch.errors import InputError
from flowers_batch.sources.containers import close_files
from flowers_batch.sources.images import Image, path_bytes
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.reading import ReadError
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import open_folder

LONG_EDGE = 160  # pixels
_WEBP_QUALITY = 70
_PIXELS = PixelBudget(100_000_000)  # of all photos that are decoded at the same time


class Photos:
    """The photos of a run.

    Args:
        folder: The run's folder, whose manifest knows which file holds a photo.
        images: Where the photos are, as `open_source` takes it.
        follow_links: Whether photos are shown that links in the photos' folder name, but that are outside it.

    Attributes:
        source: Reads the photos; None if they no longer exist.
        follows_links: As given.
    """

    def __init__(self, folder: str, images: str, *, follow_links: bool = True):
        self._folder, self.follows_links = open_folder(folder), follow_links
        job = read_job(self._folder)
        self.source: Source | None = None
        try:
            self.source = open_source(images, job.root if job else None)
        except InputError as error:
            self._unavailable = str(error)

    def find(self, paths: Iterable[str]) -> dict[str, Image]:
        """Return where to read photos, by path."""
        images = {path: Image(path) for path in paths}
        if self.source and not self.source.found_by_path:
            images |= find_images(self._folder, images.keys())
        return images

    def in_shard(self, number: int) -> pa.Table | None:
        """Return the manifest rows of a shard's photos; None if there is no manifest."""
        manifest = self._manifest
        return read_rows(self._folder, manifest.shards[number]) if manifest else None

    @cached_property
    def _manifest(self) -> Manifest | None:
        return read_manifest(self._folder)

    def thumbnail(self, image: Image) -> bytes:
        """Return an upright thumbnail of a photo as a WebP file, its longer edge at most `LONG_EDGE` pixels.

        Raises:
            ReadError: The photo cannot be read.
            DecodeError: It cannot be decoded.
            RunError: The photos' folder no longer exists.
        """
        if self.source is None:
            raise ReadError("missing", self._unavailable)
        if self.is_outside(image):
            raise ReadError("unreadable", "Its path points outside the photos' folder.")
        if not self.follows_links and self.is_link_outside(image):
            raise ReadError("unreadable", "It is a link to a file outside the photos' folder.")
        photo = decode_photo(self.source.read(image), min_side=LONG_EDGE, budget=_PIXELS)
        height, width = photo.shape[:2]
        scale = min(1.0, LONG_EDGE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        done, encoded = cv2.imencode(
            ".webp", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY]
        )
        if not done:
            raise DecodeError("unsupported", "Its thumbnail cannot be encoded.")
        return encoded.tobytes()

    def is_outside(self, image: Image) -> bool:
        """Return whether the path of a photo leads out of the source's folder.

        A list may name files anywhere: its author chose them.
        """
        return not self._is_inside(image, os.path.abspath)

    def is_link_outside(self, image: Image) -> bool:
        """Return whether the file of a photo is outside the source's folder once links are followed.

        A tar or table was named by the user, wherever a link leads.
        """
        return image.source is None and not self._is_inside(image, os.path.realpath)

    def _is_inside(self, image: Image, resolve: Callable[[bytes], bytes]) -> bool:
        source = self.source
        if source is None or isinstance(source, ListSource) or not source.folder.is_local:
            return True
        root = resolve(os.fsencode(source.folder.path))
        try:
            file = resolve(os.path.join(root, path_bytes(image.source or image.path)))
        except ValueError:  # a NUL
            return False
        return os.path.commonpath([root, file]) == root

    def close(self) -> None:
        """Close files that hold several photos; reading opens them again."""
        close_files()
