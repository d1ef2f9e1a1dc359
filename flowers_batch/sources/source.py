"""What every source of images offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from flowers_batch.sources.images import Image
from flowers_batch.sources.left_out import LeftOut
from flowers_batch.sources.skipping import Skipping
from flowers_batch.storage.folder import Folder


class Source(Protocol):
    """Lists images and reads them; small enough to be sent to actors, and safe to read from many threads."""

    @property
    def url(self) -> str:
        """The path or URL by which `open_source` opens it."""

    @property
    def root(self) -> str | None:
        """What the paths of a list are relative to, as it was given."""

    @property
    def folder(self) -> Folder:
        """The folder of its files."""

    @property
    def skipping(self) -> Skipping:
        """Which names are left out; only what makes a difference to the source."""

    @property
    def left_out(self) -> LeftOut:
        """What the last listing left out; complete once that has ended."""

    @property
    def repeated(self) -> int:
        """Entries of a list that were dropped because they repeat an earlier one, counted while listing."""

    @property
    def in_path_order(self) -> bool:
        """Whether the images are listed in the order of their paths' bytes."""

    @property
    def found_by_path(self) -> bool:
        """Whether an image's path alone says where to read it; else its `source` and `offset` do."""

    @property
    def may_read_stores(self) -> bool:
        """Whether an image may be read from a store: whoever reads it needs the store's credentials."""

    def local_path(self, image: Image) -> bytes | None:
        """Return the file on this machine that is an image; None if it is in a store, a tar or a table."""

    def is_in_store(self, image: Image) -> bool:
        """Return whether an image is read from a store, which takes tens of milliseconds of waiting."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """List the images, each path once, some thousands at a time: batches with the columns `IMAGES`."""

    def owns(self, rows: pa.Table) -> pa.Array | pa.ChunkedArray:
        """Return whether the source may have listed the images of manifest rows: bool [rows].

        Anyone may have written a manifest, and its rows may name any file. What `read` can tell by itself, it refuses.
        """

    def read(self, image: Image) -> bytes:
        """Return an image's bytes, or raise `ReadError`."""
