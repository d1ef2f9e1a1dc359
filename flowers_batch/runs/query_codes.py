"""Codes of photos that are not in an archive, made as the archive's own were."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowers_batch.dataset.job import Job
from flowers_batch.dataset.listing_differences import new_rows
from flowers_batch.dataset.schema import FAILED, codes_of
from flowers_batch.errors import InputError
from flowers_batch.progress import Progress, Reporter
from flowers_batch.runs.reproduction import worker_of
from flowers_batch.sources.images import PATH
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.io_errors import writing_scratch
from flowers_batch.storage.scratch import scratch_folder


@dataclass(frozen=True)
class QueryEncoding:
    """Encodes photos: a job for `cluster.single_actor.run_on_one_actor`.

    Attributes:
        job: What made the archive's codes, with the place where its weights are.
        photos: Absolute paths or URLs.
    """

    job: Job
    photos: tuple[str, ...]

    def __call__(self, threads: int, gpus: int, reporter: Reporter) -> NDArray[np.floating]:
        """Return the codes [photos, width], in any order.

        Raises:
            InputError: A photo cannot be read, the weights are not available, or they make other codes by now.
        """
        with _list_of(self.photos) as photos:
            worker = worker_of(replace(self.job, images=photos, root=None), threads, gpus, reporter)
            listing = [new_rows(batch) for batch in open_source(photos).batches()]
            reporter.update(Progress(f"encoding {len(self.photos)} photos"))
            return np.concatenate([_codes(rows) for rows in worker.batches(0, pa.Table.from_batches(listing), {})])


@contextmanager
def _list_of(photos: Sequence[str]) -> Iterator[str]:
    """Give the path of a list of photos, until the block ends."""
    with writing_scratch(), scratch_folder() as folder:
        path = os.path.join(folder, "photos.parquet")
        pq.write_table(pa.table({PATH: list(photos)}), path)
        yield path


def _codes(rows: pa.RecordBatch) -> NDArray[np.floating]:
    for row in rows.filter(pc.equal(rows["status"], FAILED)).select([PATH, "reason", "message"]).to_pylist():
        raise InputError(f"{row[PATH]} cannot be compared ({row['reason']}: {row['message']}): give another photo.")
    return codes_of(rows)[0]
