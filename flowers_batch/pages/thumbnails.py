"""Small pictures of a run's photos."""

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
from flowers_batch.sources.images import Image, images_of, path_bytes
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.opening import open_source
from flowers_batch.sources.reading import ReadError
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import open_folder

SIDE = 160  # pixels of the longer side
_QUALITY = 70
_PIXELS = PixelBudget(100_000_000)  # of all photos that are decoded at once


class Photos:
    """The photos of a run.

    Args:
        folder: The run's, whose manifest knows what file holds a photo.
        images: Where the photos lie.

    Attributes:
        source: What reads them; None where it is not there any more.
    """

    def __init__(self, folder: str, images: str):
        self._folder = open_folder(folder)
        job = read_job(self._folder)
        self.source: Source | None = None
        try:
            self.source = open_source(images, job.root if job else None)
        except InputError as error:
            self._why = str(error)

    def find(self, paths: Iterable[str]) -> dict[str, Image]:
        """Where photos lie, by their paths."""
        images = {path: Image(path) for path in paths}
        if self.source and not self.source.found_by_path:
            images |= find_images(self._folder, images.keys())
        return images

    def in_shard(self, number: int) -> dict[str, Image]:
        """Where the photos of a shard lie, by their paths."""
        manifest = read_manifest(self._folder)
        rows = read_rows(self._folder, manifest.shards[number]) if manifest else None
        return {image.path: image for image in images_of(rows)} if rows else {}

    def thumbnail(self, image: Image) -> bytes:
        """A small picture of a photo, upright, as a WebP file.

        Raises:
            ReadError, DecodeError: It cannot be read, or gives no picture.
            RunError: The folder is not there any more.
        """
        if self.source is None:
            raise ReadError("missing", self._why)
        if self.leads_outside(image, by_links=False):
            raise ReadError("unreadable", "Its path leads out of the folder of the photos.")
        photo = decode_photo(self.source.read(image), min_side=SIDE, budget=_PIXELS)
        height, width = photo.shape[:2]
        scale = min(1.0, SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        done, encoded = cv2.imencode(
            ".webp", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, _QUALITY]
        )
        if not done:
            raise DecodeError("unsupported", "No small picture can be made of it.")
        return encoded.tobytes()

    def leads_outside(self, image: Image, by_links: bool = True) -> bool:
        """Whether a photo's file lies elsewhere than in the source's folder: by its path, or also by links.

        A list's entries may lie anywhere: whoever wrote it named them.
        """
        source = self.source
        if source is None or isinstance(source, ListSource) or not source.folder.is_local:
            return False
        # A tar is what was named, wherever it lies.
        resolve = os.path.realpath if by_links and not image.source else os.path.abspath
        root = resolve(os.fsencode(source.folder.path))
        try:
            where = resolve(os.path.join(root, path_bytes(image.source or image.path)))
        except ValueError:  # a NUL
            return True
        return os.path.commonpath([root, where]) != root
