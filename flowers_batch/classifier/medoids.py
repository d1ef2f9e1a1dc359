"""Photos that stand for many others: the medoids of clusters of codes."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.labelled_codes import Codes
from flowers_batch.classifier.normalization import SQRT_L2, Normalization
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter

_DIMENSIONS = 50  # more of them choose no better photos
# Of the sample that the components are computed from: codes, and their values, 64 MB in float32.
_MAX_FITTED, _MAX_FITTED_VALUES = 10_000, 1 << 24
_CHUNK_SIZE = 1024  # codes that are reduced at once
_SEED = 0


def reduce_codes(codes: Codes, count: int, reporter: Reporter = NULL_REPORTER) -> NDArray[np.float32]:
    """Return codes as clustering compares them: normalised, on their first 50 principal components.

    Args:
        codes: They are read chunk by chunk.
        count: How many there are, 1 or more.
        reporter: Receives progress.

    Returns:
        float32 [count, 50]; fewer columns if there are fewer codes, or if these are shorter.
    """
    import faiss
    from threadpoolctl import threadpool_limits

    normalize = Normalization(SQRT_L2)
    fitted = min(count, _MAX_FITTED, max(_DIMENSIONS, _MAX_FITTED_VALUES // codes.width))
    sample = normalize(codes.take(np.linspace(0, count - 1, fitted).astype(np.int64)))
    components = faiss.PCAMatrix(codes.width, min(_DIMENSIONS, *sample.shape))
    reduced = np.empty((count, components.d_out), np.float32)
    done = 0
    with threadpool_limits(1):  # several threads spin while other work has the cores, as thumbnails during a review
        components.train(sample)
        del sample
        for positions, chunk in codes.chunks(np.arange(count), None, _CHUNK_SIZE):
            reduced[positions] = components.apply(normalize(chunk))
            done += len(positions)
            reporter.update(Progress(f"comparing photos: {done} of {count}"))
    return reduced


def select_medoids(points: NDArray[np.float32], weights: NDArray[np.floating], count: int) -> NDArray[np.int_]:
    """Choose points that stand for as many others as possible: of each k-means cluster the one nearest to its centre.

    Args:
        points: float32 [N, dimensions], as `reduce_codes` returns them.
        weights: [N], above 0: how much it matters that a point is near a chosen one.
        count: How many points, 1 or more; all of them, if there are fewer.

    Returns:
        int [count]: their positions, those of the heaviest clusters first.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    heaviest_first = np.argsort(-weights, kind="stable")
    if count >= len(points):
        return heaviest_first
    with warnings.catch_warnings(), threadpool_limits(1, "openmp"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer points differ than are wanted
        clustering = KMeans(count, n_init=1, random_state=_SEED).fit(points, sample_weight=weights)
    clusters = clustering.labels_
    distances = np.linalg.norm(points - clustering.cluster_centers_[clusters], axis=1)
    nearest_first = np.lexsort((distances, clusters))
    found, first = np.unique(clusters[nearest_first], return_index=True)
    cluster_weights = np.bincount(clusters, weights)[found]
    medoids = nearest_first[first][np.argsort(-cluster_weights, kind="stable")]
    others = heaviest_first[~np.isin(heaviest_first, medoids)]
    return np.concatenate([medoids, others])[:count]
