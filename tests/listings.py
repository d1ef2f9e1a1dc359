"""Listings of images for tests of the manifest."""

from __future__ import annotations

from collections import Counter

from flowers_batch.dataset import growth
from flowers_batch.dataset.growth import grow_manifest
from flowers_batch.dataset.manifest import (
    Manifest,
    read_manifest,
    read_rows,
)
from flowers_batch.sources.images import Image, batches_of
from flowers_batch.sources.left_out import LeftOut
from flowers_batch.sources.skipping import Skipping
from flowers_batch.storage.folder import Folder

PATHS = [f"{folder}/{number:03d}.jpg" for folder in ("a", "b", "ü") for number in range(9)]  # 27


class Listing:
    """A source that lists given images."""

    url = "/photos"
    root = None
    repeated = 0
    skipping = Skipping()
    in_path_order = True

    def __init__(self, images: list[Image], ignored: int = 0, batch: int = 6):
        self._images, self._batch = images, batch
        self.left_out = LeftOut(endings=Counter({".txt": ignored} if ignored else {}))

    def batches(self):
        for start in range(0, len(self._images), self._batch):
            yield from batches_of(self._images[start : start + self._batch])


def paths_of(folder: Folder, manifest: Manifest) -> list[list[str]]:
    return [read_rows(folder, shard)["path"].to_pylist() for shard in manifest.shards]


def parts(folder: Folder) -> list[str]:
    return folder.names("manifest")


def grown(folder: Folder, images: list[Image], size: int = 4, run: str = "next", **options):
    return grow_manifest(folder, read_manifest(folder), Listing(images), size, run, **options)


COUNTS = growth.CHANGES
