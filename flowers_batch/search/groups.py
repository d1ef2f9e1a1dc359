"""Groups of similar photos: clusters of their codes, each of which a person can label at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.labelled_codes import CodesInMemory, CodesOnDisk
from flowers_batch.classifier.medoids import reduce_codes
from flowers_batch.classifier.random_order import random_order
from flowers_batch.dataset.run_folder import Run
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter
from flowers_batch.search.kept_arrays import identity_of, keep_arrays, read_arrays

GROUPS = "groups.safetensors"
MAX_PHOTOS = 200_000  # that take part: a random sample of a larger archive
# Of a group's photos, those nearest to its centre are typical: docs/decisions/search-groups-show-a-tenth.md.
_TYPICAL_SHARE, _MIN_TYPICAL = 0.1, 4
_MIN_COUNT, _MAX_COUNT = 20, 100  # groups
_PHOTOS_PER_GROUP = 12  # between these bounds
# Of k-means, which is fitted to a sample of a large archive.
_STARTS, _STEPS, _POINTS_PER_CLUSTER = 3, 20, 256
_BYTES_IN_MEMORY = 1 << 30  # of codes, above which they are read twice instead
_VERSION = 2  # of what is computed here
_SEED = 0


@dataclass(frozen=True)
class Groups:
    """Groups of similar photos.

    Attributes:
        rows: Of each group, its photos' rows in the codes folder, those nearest to its centre first: int [photos].
            Large and distinct groups come first.
    """

    rows: tuple[NDArray[np.int_], ...]


def typical_rows(rows: NDArray[np.int_]) -> NDArray[np.int_]:
    """Return the rows of a group that are worth a label: those nearest to its centre."""
    return rows[: max(_MIN_TYPICAL, round(_TYPICAL_SHARE * len(rows)))]


def group_photos(run: Run, count: int | None = None, reporter: Reporter = NULL_REPORTER) -> Groups:
    """Divide the photos of an archive into groups of similar ones.

    The groups are kept in the folder for the next call, if it can be written.

    Args:
        run: The codes folder.
        count: How many groups, at most; None: 20 to 100, the more photos there are.
        reporter: Receives progress.

    Returns:
        The groups. Of photos with equal files one takes part, and of a large archive `MAX_PHOTOS`.
    """
    identity = identity_of(run, run.manifest.shards, "groups", _VERSION, count)
    kept = _read(run, identity)
    if kept is not None:
        return kept
    reporter.update(Progress("choosing photos to group"))
    rows = np.sort(random_order(run, MAX_PHOTOS))
    points = _points(run, rows, reporter)
    reporter.update(Progress(f"grouping {len(rows)} photos"))
    groups = Groups(tuple(rows[positions] for positions in _clusters(points, count or _default_count(len(rows)))))
    sizes = np.array([len(group) for group in groups.rows], np.int64)
    keep_arrays(run.folder, GROUPS, identity, {"rows": np.concatenate([*groups.rows, rows[:0]]), "sizes": sizes})
    return groups


def split_group(
    run: Run, rows: NDArray[np.int_], reporter: Reporter = NULL_REPORTER
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Divide a group in two.

    Args:
        run: The codes folder.
        rows: Of the group's photos.
        reporter: Receives progress.

    Returns:
        The rows of the larger and of the smaller part, those nearest to its centre first.

    Raises:
        InputError: There are fewer than two photos.
    """
    if len(rows) < 2:
        raise InputError("A group of one photo cannot be split.")
    rows = np.sort(rows)
    parts = [rows[positions] for positions in _clusters(_points(run, rows, reporter), 2)]
    if len(parts) < 2:  # all codes are equal
        parts = np.array_split(rows, 2)
    larger, smaller = sorted(parts, key=len, reverse=True)
    return larger, smaller


def _default_count(photos: int) -> int:
    return min(_MAX_COUNT, max(_MIN_COUNT, photos // _PHOTOS_PER_GROUP))


def _points(run: Run, rows: NDArray[np.int_], reporter: Reporter) -> NDArray[np.float32]:
    """Return the codes of ascending rows as clustering compares them: float32 [rows, dimensions]."""
    if len(rows) < 2:
        return np.empty((len(rows), 1), np.float32)
    codes = CodesOnDisk(run, rows, 0)
    if len(rows) * codes.width * np.dtype(np.float32).itemsize > _BYTES_IN_MEMORY:
        return reduce_codes(codes, len(rows), reporter)
    return reduce_codes(CodesInMemory(codes.take(np.arange(len(rows)))), len(rows), reporter)


def _clusters(points: NDArray[np.float32], count: int) -> list[NDArray[np.int_]]:
    """Return the positions of the points in each cluster, those nearest to the centre first.

    Clusters come in the order of their size times their distinctness: how much nearer their typical points are to their
    own centre than to the next one (the simplified silhouette of Hruschka et al., 2004).
    """
    import faiss
    from threadpoolctl import threadpool_limits

    count = min(count, len(points))
    if count < 2:
        return [np.arange(len(points))] if len(points) else []
    clustering = faiss.Kmeans(
        *(points.shape[1], count),
        niter=_STEPS,
        nredo=_STARTS,
        init_method=faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS,
        seed=_SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=_POINTS_PER_CLUSTER,
    )
    with threadpool_limits(1):  # several threads spin while other work has the cores, as thumbnails during a review
        clustering.train(points)
        squares, (clusters, _) = (each.T for each in clustering.index.search(points, 2))
    nearest, next_nearest = np.sqrt(squares)
    distinctness = 1 - nearest / np.maximum(next_nearest, np.finfo(np.float32).tiny)
    by_cluster = np.lexsort((nearest, clusters))
    bounds = np.cumsum(np.bincount(clusters))[:-1]
    clusters = [positions for positions in np.split(by_cluster, bounds) if len(positions)]
    return sorted(clusters, key=lambda each: -len(each) * float(distinctness[typical_rows(each)].mean()))


def _read(run: Run, identity: str) -> Groups | None:
    """Return the groups that are kept in the folder; None if there are none of this identity, or they are damaged."""
    arrays = read_arrays(run.folder, GROUPS, identity, 16 * 2 * MAX_PHOTOS)
    if arrays is None or arrays.keys() != {"rows", "sizes"}:
        return None
    rows, sizes = arrays["rows"], arrays["sizes"]
    if not all(each.dtype == np.int64 and each.ndim == 1 for each in (rows, sizes)):
        return None
    if (sizes <= 0).any() or (sizes > len(rows)).any() or sizes.sum() != len(rows):
        return None
    ascending = np.sort(rows)
    if len(rows) and not 0 <= ascending[0] <= ascending[-1] < run.manifest.images:
        return None
    if (ascending[1:] == ascending[:-1]).any():
        return None
    return Groups(tuple(np.split(rows, np.cumsum(sizes)[:-1])) if len(sizes) else ())
