"""Thumbnails of a run's photos."""

from __future__ import annotations

import os
from collections.abc import Iterable

import cv2

from flowers_batch.dataset.manifest import find_images, read_manifest, read_rows
from flowers_batch.dataset.run_folder import read_job
from flowers_batch.decoding.decode import decode_photo
from flowers_batch.decoding.formats import DecodeError
from flowers_batch.decoding.process_limits import PixelBudget
from flowers_batch.errors import InputError
from flowers_batch.sources.containers import close_files
from flowers_batch.sources.images import Image, images_of, path_bytes
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

    Attributes:
        source: Reads the photos; None if they no longer exist.
    """

    def __init__(self, folder: str, images: str):
        self._folder = open_folder(folder)
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

    def in_shard(self, number: int) -> dict[str, Image]:
        """Return where to read the photos of a shard, by path."""
        manifest = read_manifest(self._folder)
        rows = read_rows(self._folder, manifest.shards[number]) if manifest else None
        return {image.path: image for image in images_of(rows)} if rows else {}

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

    def is_outside(self, image: Image, *, follow_links: bool = False) -> bool:
        """Return whether a photo's file is outside the source's folder.

        A list may name files anywhere: its author chose them.

        Args:
            image: The photo.
            follow_links: Whether a link in the folder that points outside counts as outside.
        """
        source = self.source
        if source is None or isinstance(source, ListSource) or not source.folder.is_local:
            return False
        # A tar was named by the user, wherever a link leads.
        resolve = os.path.realpath if follow_links and not image.source else os.path.abspath
        root = resolve(os.fsencode(source.folder.path))
        try:
            file = resolve(os.path.join(root, path_bytes(image.source or image.path)))
        except ValueError:  # a NUL
            return True
        return os.path.commonpath([root, file]) != root

    def close(self) -> None:
        """Close files that hold several photos; reading opens them again."""
        close_files()
