"""Photos that stand for many others: the medoids of clusters of codes."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.labelled_codes import Codes
from flowers_batch.classifier.normalization import SQRT_L2, Normalization
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter

_DIMENSIONS = 50  # more of them choose no better photos
_MAX_FITTED_VALUES = 1 << 24  # of codes that the components are computed from: 64 MB in float32
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
    from sklearn.decomposition import PCA

    normalize = Normalization(SQRT_L2)
    fitted = min(count, max(_DIMENSIONS, _MAX_FITTED_VALUES // codes.width))
    sample = normalize(codes.take(np.linspace(0, count - 1, fitted).astype(np.int64)))
    pca = PCA(min(_DIMENSIONS, *sample.shape), random_state=_SEED).fit(sample)
    del sample
    reduced = np.empty((count, pca.n_components_), np.float32)
    done = 0
    for positions, chunk in codes.chunks(np.arange(count), None, _CHUNK_SIZE):
        reduced[positions] = pca.transform(normalize(chunk))
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
    # One thread: while cores are busy, as with thumbnails during a review, several threads spin and take far longer.
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
