"""Reads the pixels of shrunk photos from their shards into slots, where decode workers would put those of others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.dataset.schema import PIXELS, PIXELS_BYTES
from flowers_batch.dataset.shard_reading import read_group
from flowers_batch.dataset.shrunk import NO_LONGER, ShrunkSource, starts_of_groups
from flowers_batch.decoding.groups import RESULTS
from flowers_batch.decoding.outputs import SquarePixels
from flowers_batch.decoding.pool import PoolSettings
from flowers_batch.decoding.tasks import DecodedGroup, closed_error
from flowers_batch.encoding.daemon_threads import DaemonThreads
from flowers_batch.sources.images import PATH

# A few threads read more than any network takes; and the fewer there are, the more photos of a row group does each get.
_MAX_THREADS = 8
Places = NDArray[np.int64]
_FOUND = pa.schema([pa.field(PATH, pa.string()), pa.field("folder", pa.string()), *RESULTS])


class ShrunkPool:
    """Threads that read the pixels of shrunk photos into slots. What else is known of a photo, its row says.

    Args:
        source: The folder of pixels.
        output: What a slot holds.
        settings: How many threads read.
        slots: Images that there is room for.

    Attributes:
        slots: [slots, 224, 224, 3].
        settings: As given, with as many workers as there are threads.
        steps: Grows with each group of images.
    """

    def __init__(self, source: ShrunkSource, output: SquarePixels, settings: PoolSettings, slots: int):
        self.settings = replace(settings, workers=min(settings.workers, _MAX_THREADS))
        self.slots = np.zeros((slots, *output.shape), output.dtype)
        self.steps, self._source, self._is_closed = 0, source, False
        self._threads = DaemonThreads(self.settings.workers, "shrunk")

    def submit(self, rows: pa.RecordBatch, first_slot: int) -> Future[DecodedGroup]:
        """Have a thread read the pixels of a few images.

        Args:
            rows: The images, with the columns `groups.REQUESTS`.
            first_slot: Where the first one goes; the others follow. A slot whose image failed may hold anything.

        Returns:
            A future, whose rows have the column `folder` besides those of `groups.RESULTS`. It raises `InputError` if
            an image is none of the source's, or a shard is damaged.
        """
        future: Future[DecodedGroup] = Future()
        self._threads.submit(self._work, rows, self.slots[first_slot : first_slot + len(rows)], future)
        if self._is_closed:  # its threads may have ended
            with suppress(InvalidStateError):
                future.set_exception(closed_error())
        return future

    def close(self) -> None:
        """End the threads; what was submitted and is not begun fails."""
        self._is_closed = True
        self._threads.join()

    def _work(self, rows: pa.RecordBatch, slots: NDArray[np.generic], future: Future[DecodedGroup]) -> None:
        with suppress(InvalidStateError):  # the pool was closed meanwhile
            try:
                if self._is_closed:
                    raise closed_error()
                group = self._read(rows, slots)
            except BaseException as error:
                future.set_exception(error)
            else:
                self.steps += 1
                future.set_result(group)

    def _read(self, requests: pa.RecordBatch, slots: NDArray[np.generic]) -> DecodedGroup:
        """Read the pixels of images into slots, and return what is known of them."""
        started, copying = time.perf_counter(), 0.0
        tables, order, rows = [_FOUND.empty_table()], np.full(len(requests), -1), 0
        for places, table, chosen in self._groups(requests):
            copied = time.perf_counter()
            _copy(table["pixels"], chosen, slots, places)
            copying += time.perf_counter() - copied
            tables.append(table.select(_FOUND.names).cast(_FOUND).take(pa.array(chosen)))
            order[places] = rows + np.arange(len(places))
            rows += len(places)
        found = pa.concat_tables(tables).take(pa.array(order, mask=order < 0))
        found = _without_others(found.combine_chunks().to_batches()[0], requests[PATH])
        return DecodedGroup(found, time.perf_counter() - started - copying, copying)

    def _groups(self, requests: pa.RecordBatch) -> Iterator[tuple[Places, pa.Table, Places]]:
        """Read the row groups that images are in, one at a time.

        Yields:
            The images' places among those requested, the row group, and their places in it.
        """
        run = self._source.run
        numbers, rows = self._source.places_of(requests)
        for number in np.unique(numbers).tolist():
            shard = run.manifest.shards[number]
            with run.open_shard(number) as file:
                starts = starts_of_groups(file)
                groups = np.where(numbers == number, np.searchsorted(starts, rows, "right") - 1, -1)
                for group in np.unique(groups[(groups >= 0) & (groups < file.num_row_groups)]).tolist():
                    table = read_group(run.folder, PIXELS, shard, file, group, [*_FOUND.names, "pixels"])
                    places = np.flatnonzero(groups == group)
                    yield places, table, rows[places] - starts[group]


def _copy(pixels: pa.ChunkedArray, chosen: Places, slots: NDArray[np.generic], places: Places) -> None:
    """Copy rows of a column of pixels into slots; those that are null may become anything."""
    column = pixels.chunk(0) if pixels.num_chunks == 1 else pixels.combine_chunks()
    if column.null_count == len(column):
        return
    values = np.frombuffer(column.buffers()[1], np.uint8, len(column) * PIXELS_BYTES, column.offset * PIXELS_BYTES)
    photos = values.reshape(len(column), *slots.shape[1:])
    if _are_consecutive(chosen) and _are_consecutive(places):  # as nearly always: one copy
        slots[places[0] : places[-1] + 1] = photos[chosen[0] : chosen[-1] + 1]
    else:
        slots[places] = photos[chosen]


def _are_consecutive(numbers: Places) -> bool:
    return bool((np.diff(numbers) == 1).all())


def _without_others(found: pa.RecordBatch, paths: pa.Array) -> pa.RecordBatch:
    """Return rows as those of images; where a row is another image's, that is missing by now."""
    is_same = pc.equal(found[PATH], paths).fill_null(False)
    columns = {name: pc.if_else(is_same, found[name], None) for name in (*RESULTS.names, "folder")}
    columns["reason"] = pc.if_else(is_same, columns["reason"], "missing")
    columns["message"] = pc.if_else(is_same, columns["message"], NO_LONGER)
    return pa.RecordBatch.from_pydict(columns)
