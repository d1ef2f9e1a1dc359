"""Similar: the photos of an archive that are most like given ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import fs

from flowers_batch.classifier.label_paths import PathForm, match_paths, root_of
from flowers_batch.cluster.single_actor import run_on_one_actor
from flowers_batch.config import ClusterConfig
from flowers_batch.dataset.following import follow_weights
from flowers_batch.dataset.job import JOB
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.spreadsheet import write_rows
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.runs.query_codes import QueryEncoding
from flowers_batch.search.similar import CodeSearch
from flowers_batch.sources.images import PATH
from flowers_batch.storage.opening import PathOrUrl, split_file

COLUMNS = (PATH, "similarity")


def similar(
    codes: PathOrUrl,
    photos: Sequence[str],
    count: int = 20,
    *,
    csv: PathOrUrl | None = None,
    weights: str | None = None,
    cluster: ClusterConfig | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> list[dict[str, Any]]:
    """Find the photos of an archive that are most like given ones.

    Args:
        codes: The codes folder.
        photos: Paths in the archive, written as in labels files; other photos are files, which are encoded as the
            archive was. Of several photos, the mean of their normalised codes is compared.
        count: How many photos to find, 1 or more.
        csv: A file for the answer.
        weights: Where the network's weights are, if a photo is encoded; None: where `job.json` says, if that may be
            followed.
        cluster: Where the actor comes from that encodes.
        reporter: Receives progress.

    Returns:
        Rows with `path` and `similarity`, the cosine of the angle between the codes; the most similar first, without
        the given photos themselves.

    Raises:
        InputError: The codes, a photo or the weights cannot be used, or `count` is below 1.
        RunError: Too many actors died.
    """
    if count < 1:
        raise InputError(f"`count` must be 1 or more. Received: {count}.")
    if not photos:
        raise InputError("`photos` is empty: give one or more.")
    if csv is not None:
        split_file(csv)  # refuses what cannot be written before the work
    run = open_run(codes, CODES)
    rows = _rows_of(run, photos)
    files = [_file(photo, run) for photo in photos if photo not in rows]
    queries = [_encode(run, files, weights, cluster, reporter)] if files else []
    search = CodeSearch(run, reporter)
    if rows:
        queries.append(search.codes_of([*rows.values()]))
    found, similarities = search.nearest_to_codes(np.concatenate(queries), count, [*rows.values()])
    paths = search.reader.take(found, [PATH])[PATH].to_pylist() if len(found) else []
    answer = [dict(zip(COLUMNS, each, strict=True)) for each in zip(paths, map(_rounded, similarities), strict=True)]
    if csv is not None:
        write_rows(csv, COLUMNS, answer)
    return answer


def _rows_of(run: Run, photos: Sequence[str]) -> dict[str, int]:
    """Return the rows of photos that are in the archive, by their paths as they are given."""
    matched: Mapping[str, str] = match_paths(
        photos, lambda: (batch[PATH] for batch in run.batches([PATH])), PathForm(root_of(run.job))
    )
    names = pa.array([matched.get(photo, photo) for photo in photos], pa.string())
    rows: dict[str, int] = {}
    read = 0
    for batch in run.batches([PATH]):
        where = pc.index_in(names, batch[PATH]).to_pylist()
        rows |= {photo: read + row for photo, row in zip(photos, where, strict=True) if row is not None}
        read += len(batch)
    return rows


def _file(photo: str, run: Run) -> str:
    """Return the absolute path, or the URL, of a photo that is not in the archive."""
    folder, name = split_file(photo)
    if folder.info(name).type != fs.FileType.File:
        raise InputError(f"{photo} is neither a photo of {run.folder.url} nor a file: check its name.")
    return folder.url_of(name)


def _encode(
    run: Run, files: Sequence[str], weights: str | None, cluster: ClusterConfig | None, reporter: Reporter
) -> NDArray[np.floating]:
    """Return the codes [files, width] of photos."""
    job = replace(run.job, weights=follow_weights(run.folder, JOB, run.job.weights, weights))
    return run_on_one_actor(QueryEncoding(job, tuple(files)), cluster or ClusterConfig(), reporter)


def _rounded(similarity: float) -> float:
    return round(float(similarity), 4)
