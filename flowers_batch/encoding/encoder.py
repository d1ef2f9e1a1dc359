"""Turning shards of images into tables of codes or, with a head, of labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flowers_batch.dataset.foreign_rows import missing_images
from flowers_batch.dataset.schema import (
    FAILED,
    OK,
    codes_schema,
    folder_of,
    predictions_schema,
)
from flowers_batch.encoding.feed import Feed, FeedSettings, Network, Reader
from flowers_batch.encoding.labeller import Labeller
from flowers_batch.encoding.pending_image import PendingImage
from flowers_batch.encoding.stages import Stages
from flowers_batch.encoding.worker import NOTHING_QUARANTINED, Quarantined
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.sources.images import Image, images_of
from flowers_batch.sources.lists import ListSource

_ROWS_AT_ONCE = 1024  # manifest rows that are Python objects at a time


class Encoder:
    """Turns shards of images into tables of codes or, with a head, of labels.

    Args:
        network: Pixels [N, 224, 224, 3] to codes float32 [N, width].
        width: Numbers in a code.
        source: Where images are read from.
        fingerprint: What the rows depend on.
        settings: How the network is fed.
        labeller: What labels the codes; None stores the codes.
    """

    def __init__(
        self,
        network: Network,
        width: int,
        source: Reader,
        fingerprint: Fingerprint,
        settings: FeedSettings,
        labeller: Labeller | None = None,
    ):
        self.schema = predictions_schema() if labeller else codes_schema(width, fingerprint.code_dtype)
        self.fingerprint, self.can_reuse_rows = fingerprint, True
        self._width, self._labeller = width, labeller
        self._feed = Feed(network, source, settings)

    @property
    def images_seen(self) -> int:
        """Images so far."""
        return self._feed.images_seen

    def batches(
        self, shard: int, rows: pa.Table, stages: Stages, quarantined: Quarantined = NOTHING_QUARANTINED
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a shard; another thread may begin with the next one meanwhile, so that there is no pause.

        Equal files go through the network once, unless too many other files are between them.

        Args:
            shard: Its number.
            rows: Its manifest rows.
            quarantined: Images that fail without being read, since they would end or stall the process.
            stages: Gains the seconds spent in `read` and `decode` (by all threads together), `wait` (for the next
                batch's pixels), and `network`.

        Raises:
            RunError: A code does not fit into the type that it is stored in.
        """
        if isinstance(self._feed.reader, ListSource):  # which may name any file: only what it does name is read
            quarantined = {**missing_images(rows), **quarantined}
        for images in self._feed.run(_images(rows), quarantined, stages):
            yield self._table(images)

    def _table(self, images: list[PendingImage]) -> pa.RecordBatch:
        columns: dict[str, pa.Array] = _image_columns(images)
        ok = np.array([image.code is not None for image in images])
        codes = [image.code for image in images if image.code is not None]
        stacked = np.stack(codes) if codes else np.empty((0, self._width), self.fingerprint.code_dtype)
        if self._labeller:
            columns |= self._labeller.columns(stacked, ok)
        else:
            columns["code"] = _code_column(stacked, ok, self.schema.field("code").type)
        return pa.RecordBatch.from_arrays([columns[name] for name in self.schema.names], schema=self.schema)


def _images(rows: pa.Table) -> Iterator[Image]:
    """Yield a shard's images, of which only some are Python objects at a time."""
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield from images_of(rows.slice(start, _ROWS_AT_ONCE))


def _image_columns(images: list[PendingImage]) -> dict[str, pa.Array]:
    failures = [image.failure or (None, None) for image in images]
    values: dict[str, list[Any]] = {
        "path": [image.image.path for image in images],
        "folder": [folder_of(image.image.path, image.image.source) for image in images],
        "sha256": [image.sha256 for image in images],
        "phash": [image.phash for image in images],
        "bytes": [image.size for image in images],
        "width": [image.width for image in images],
        "height": [image.height for image in images],
        "status": [FAILED if image.failure else OK for image in images],
        "reason": [reason for reason, _ in failures],
        "message": [message for _, message in failures],
    }
    schema = predictions_schema()
    return {name: pa.array(value, schema.field(name).type) for name, value in values.items()}


def _code_column(codes: NDArray[np.floating], ok: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    padded = np.zeros((len(ok), kind.list_size), codes.dtype)
    padded[ok] = codes
    return pa.FixedSizeListArray.from_arrays(pa.array(padded.ravel()), type=kind, mask=pa.array(~ok))
