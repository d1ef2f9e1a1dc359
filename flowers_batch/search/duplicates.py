"""Near-duplicates in an archive, and which photo of each group to keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.classifier.labelled_codes import CodesOnDisk
from flowers_batch.classifier.medoids import reduce_codes
from flowers_batch.classifier.near_duplicates import group_near_duplicates
from flowers_batch.classifier.random_order import random_order
from flowers_batch.dataset.manifest import read_rows
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES, OK
from flowers_batch.dataset.spreadsheet import write_rows
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter
from flowers_batch.search.file_pairs import FilePairs, pairs_in
from flowers_batch.search.row_reader import RowReader
from flowers_batch.sources.images import EPOCH
from flowers_batch.storage.opening import PathOrUrl, split_file

# The codes of near-duplicates are nearer to each other than this times the median distance of two photos of the
# archive: benchmarks/search.py measures it for edited copies.
MAX_DISTANCE = 0.6
_COMPARED = 2000  # photos that the median distance is computed from
_COLUMNS = ("path", "width", "height", "bytes", "modified")


def duplicates(
    codes: PathOrUrl, *, csv: PathOrUrl | None = None, reporter: Reporter = NULL_REPORTER
) -> list[dict[str, Any]]:
    """Find groups of near-duplicates, and say which photo of each to keep. Nothing is deleted.

    Args:
        codes: The codes folder.
        csv: A file for the groups: `group`, `keep` (yes or no) and what is known of each photo; all files of a pair
            have rows.
        reporter: Receives progress.

    Returns:
        For each group, the largest first: `keep`, the photo with most pixels, of these the largest file, then the
        oldest; and `others`. A photo is `path`, `width`, `height`, `bytes` and `modified`, a time in ISO 8601 (None
        if the archive does not say), and `pair`: the paths of the other files that are this photo, such as the JPEG of
        a RAW file.

    Raises:
        InputError: It is not a finished codes folder, or is damaged.
        RunError: A file cannot be read or written.
    """
    if csv is not None:
        split_file(csv)  # refuses what cannot be written before the work
    run = open_run(codes, CODES)
    pairs = pairs_in(run, reporter)
    found = [[[row, *pairs.others(row)] for row in group] for group in near_duplicates(run, reporter, pairs)]
    files = iter(_files(run, np.array([row for group in found for photo in group for row in photo], np.int64)))
    groups = [[[next(files) for _ in photo] for photo in group] for group in found]
    if csv is not None:
        write_rows(csv, ("group", "keep", *_COLUMNS), _csv_rows(groups))
    described = [[first | {"pair": [file["path"] for file in rest]} for first, *rest in group] for group in groups]
    return [{"keep": group[0], "others": group[1:]} for group in described]


def near_duplicates(run: Run, reporter: Reporter = NULL_REPORTER, pairs: FilePairs | None = None) -> list[list[int]]:
    """Return the rows of each group of near-duplicates, the photo to keep first; groups with most photos come first.

    Files that are one photo count as one: the row of the best of them stands for it.

    Photos that are linked by equal files or by perceptual hashes (`classifier.near_duplicates`) are near-duplicates if
    their codes are also near to that of the photo to keep. Of predictions, which have no codes, the links suffice.

    Args:
        run: Codes or predictions.
        reporter: Receives progress.
        pairs: The files that are one photo; None: as `pairs_in` finds them.
    """
    pairs = pairs_in(run, reporter) if pairs is None else pairs
    rows, linked = _linked_photos(run, pairs, reporter)
    if not len(rows):
        return []
    order = _best_first(run, rows, reporter)
    order = order[np.sort(np.unique(pairs.photos_of(rows)[order], return_index=True)[1])]
    points = _points(run, rows, reporter) if run.job.kind == CODES else np.zeros((len(rows), 1), np.float32)
    by_group = order[np.argsort(linked[order], kind="stable")]
    bounds = np.flatnonzero(np.diff(linked[by_group])) + 1
    found = [group for each in np.split(by_group, bounds) for group in _around_the_best(each, points)]
    return [rows[group].tolist() for group in sorted(found, key=len, reverse=True)]


def _linked_photos(run: Run, pairs: FilePairs, reporter: Reporter) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return the rows of photos that have near-duplicates by their bytes or hashes, ascending, and their groups."""
    images = run.manifest.images
    digests, hashes, every = (np.empty(images, kind) for kind in ("S16", np.uint64, np.int64))
    read = found = 0
    for batch in run.batches(["sha256", "phash", "status"]):
        ok = pc.equal(batch["status"], OK)
        if ok.true_count:
            here = slice(found, found + ok.true_count)
            halves = np.frombuffer(batch["sha256"].filter(ok).buffers()[1], "S16", 2 * ok.true_count)
            digests[here] = halves[::2]  # half a digest tells files apart as well
            hashes[here] = batch["phash"].filter(ok).to_numpy()
            every[here] = read + np.flatnonzero(ok.to_numpy(zero_copy_only=False))
            found += ok.true_count
        read += len(batch)
        reporter.update(Progress(f"reading hashes: {read} of {images}"))
    reporter.update(Progress(f"comparing the hashes of {found} photos"))
    every = every[:found]
    linked = group_near_duplicates(digests[:found], hashes[:found])
    photos = pairs.photos_of(every)
    linked = _joined(linked, np.searchsorted(every, photos))
    several = np.bincount(linked[photos == every])[linked] > 1
    return every[several], linked[several]


def _joined(groups: NDArray[np.int_], photos: NDArray[np.int_]) -> NDArray[np.int_]:
    """Return groups of files in which the files of a photo are in one group.

    Args:
        groups: Of each file, from 0: int [files].
        photos: The position of the first file of each file's photo: int [files].
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    (paired,) = np.nonzero(groups != groups[photos])
    if not len(paired):
        return groups
    size = groups.max() + 1
    ends = groups[paired], groups[photos[paired]]
    graph = coo_array((np.ones(len(paired), bool), ends), shape=(size, size))
    return connected_components(graph, directed=False)[1][groups]


def _best_first(run: Run, rows: NDArray[np.int_], reporter: Reporter) -> NDArray[np.int_]:
    """Return the positions of photos: those with most pixels first, then the largest files, then the oldest."""
    table = RowReader(run).take(rows, ["width", "height", "bytes"])
    width, height, size = (table[name].fill_null(0).to_numpy().astype(np.int64) for name in table.column_names)
    modified = _modified(run, rows).cast(pa.int64()).to_numpy()
    return np.lexsort((rows, modified, -size, -width * height))


def _modified(run: Run, rows: NDArray[np.int_]) -> pa.ChunkedArray:
    """Return when the files of ascending rows were changed, as the manifest has it: timestamp [rows]."""
    starts = np.cumsum([0, *(shard.images for shard in run.manifest.shards)])
    bounds = np.searchsorted(rows, starts)
    chunks: list[pa.Array] = []
    for number in np.flatnonzero(np.diff(bounds)).tolist():
        times = read_rows(run.folder, run.manifest.shards[number])["mtime"]
        chunks += times.take(rows[bounds[number] : bounds[number + 1]] - starts[number]).chunks
    return pa.chunked_array(chunks)


def _points(run: Run, rows: NDArray[np.int_], reporter: Reporter) -> NDArray[np.float32]:
    """Return codes of ascending rows on principal components; two photos have a median distance of 1."""
    compared = random_order(run, _COMPARED)
    both = np.union1d(rows, compared)
    points = reduce_codes(CodesOnDisk(run, both, 0), len(both), reporter)
    sample = points[np.searchsorted(both, compared)]
    median = float(np.median(np.linalg.norm(sample[1:] - sample[:-1], axis=1))) if len(sample) > 1 else 0.0
    return points[np.searchsorted(both, rows)] / (median or 1.0)


def _around_the_best(positions: NDArray[np.int_], points: NDArray[np.float32]) -> Iterator[NDArray[np.int_]]:
    """Yield groups of linked photos: the best one with those near to it, then the best of the others, and so on.

    Args:
        positions: In `points`; the best photo first.
        points: float32 [N, dimensions].
    """
    while len(positions) > 1:
        near = np.linalg.norm(points[positions] - points[positions[0]], axis=1) <= MAX_DISTANCE
        if near.sum() > 1:
            yield positions[near]
        positions = positions[~near]


def _files(run: Run, rows: NDArray[np.int_]) -> list[dict[str, Any]]:
    """Return what is known of files."""
    if not len(rows):
        return []
    distinct, position = np.unique(rows, return_inverse=True)
    table = RowReader(run).take(distinct, _COLUMNS[:-1])
    table = table.append_column("modified", _modified(run, distinct)).take(position)
    files = table.to_pylist()
    for file in files:
        file["modified"] = None if file["modified"] == EPOCH else file["modified"].isoformat(timespec="seconds")
    return files


def _csv_rows(groups: list[list[list[dict[str, Any]]]]) -> Iterator[dict[str, Any]]:
    for number, group in enumerate(groups, 1):
        for position, photo in enumerate(group):
            yield from ({"group": number, "keep": "no" if position else "yes", **file} for file in photo)
