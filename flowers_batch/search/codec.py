"""What encodes codes for approximate search: the projection, the centres of the lists, and the range of each value."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.normalization import L2, Normalization
from flowers_batch.dataset.run_folder import RowGroup, Run
from flowers_batch.dataset.schema import codes_of
from flowers_batch.progress import Progress, Reporter
from flowers_batch.search.kept_arrays import identity_of, keep_arrays, read_arrays

CODEC = "index/codec.safetensors"
_VERSION = 1
_MAX_DIMENSIONS, _MIN_DIMENSIONS = 512, 64
_MAX_INDEX_BYTES = 2 << 30  # of all photos, above which they get fewer dimensions, down to the minimum
_GROWTH = 4  # times as many photos as it was made for, after which a codec is made again
_TRAINING_GROUPS, _TRAINING_ROWS = 256, 512  # row groups that codes to train on are taken from, and how many of each
_MAX_FITTED_VALUES = 1 << 26  # of codes that the components are computed from
_ITERATIONS = 10  # of k-means
_ROWS_PER_LIST = 40  # of the sample, at least: faiss warns of fewer than 39
_MAX_LISTS = _TRAINING_GROUPS * _TRAINING_ROWS // _ROWS_PER_LIST
_MAX_BYTES = 1 << 28  # of the file, which holds 51 MB of components for codes of 25,088 values
_SEED = 0


@dataclass(frozen=True)
class Codec:
    """A projection on principal components, the centres of an inverted file's lists, and the ranges of residuals.

    Attributes:
        mean: float32 [width]; zeros without a projection.
        components: float32 [dimensions, width]; without a projection [0, width].
        centres: float32 [lists, dimensions].
        ranges: float32 [2 * dimensions]: of each dimension the least residual, then the differences to the greatest.
        photos: int64 [1]: how many photos it was made for.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    centres: NDArray[np.float32]
    ranges: NDArray[np.float32]
    photos: NDArray[np.int64]

    @property
    def is_projection(self) -> bool:
        """Whether distances are those of projected codes, not of the codes themselves."""
        return len(self.components) > 0

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all arrays, in hexadecimal."""
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).data for array in self.arrays.values())).hexdigest()

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def project(self, codes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return normalised codes [N, width] as they are indexed: float32 [N, dimensions]."""
        return np.matmul(codes - self.mean, self.components.T, dtype=np.float32) if self.is_projection else codes

    def inverted_file(self) -> Any:
        """Return a `faiss.IndexIVFScalarQuantizer` without any codes."""
        import faiss

        lists, dimensions = self.centres.shape
        quantizer = faiss.IndexFlatL2(dimensions)
        quantizer.add(self.centres)
        index = faiss.IndexIVFScalarQuantizer(quantizer, dimensions, lists, faiss.ScalarQuantizer.QT_8bit)
        faiss.copy_array_to_vector(self.ranges, index.sq.trained)
        index.is_trained = True
        return index


def open_codec(run: Run, groups: list[RowGroup], reporter: Reporter) -> Codec:
    """Return the codec that is kept in the run's folder, or a new one.

    A codec fits codes of the same fingerprint, until there are several times as many photos as it was made for.
    """
    identity = identity_of(run, [], "codec", _VERSION)
    kept = read_arrays(run.folder, CODEC, identity, _MAX_BYTES)
    if kept is not None and _is_codec(kept, run.code_width) and run.manifest.images <= _GROWTH * kept["photos"][0]:
        return Codec(**kept)
    codec = _train(run, groups, reporter)
    keep_arrays(run.folder, CODEC, identity, codec.arrays)
    return codec


def _is_codec(arrays: dict[str, NDArray[Any]], width: int) -> bool:
    """Return whether arrays from a file, which may be a stranger's, have the shapes and types of a codec."""
    if arrays.keys() != {field.name for field in fields(Codec)}:
        return False
    floats = [arrays[name] for name in ("mean", "components", "centres", "ranges")]
    if not all(array.dtype == np.float32 and np.isfinite(array).all() for array in floats):
        return False
    mean, components, centres, ranges = floats
    dimensions = len(components) or width if components.ndim == 2 else 0
    return (
        mean.shape == (width,)
        and components.shape in ((0, width), (dimensions, width))
        and centres.ndim == 2
        and 0 < len(centres) <= _MAX_LISTS
        and centres.shape[1] == dimensions
        and ranges.shape == (2 * dimensions,)
        and arrays["photos"].dtype == np.int64
        and arrays["photos"].shape == (1,)
    )


def _train(run: Run, groups: list[RowGroup], reporter: Reporter) -> Codec:
    """Return a new codec for a run."""
    photos, width = run.manifest.images, run.code_width
    dimensions = min(width, _MAX_DIMENSIONS, max(_MIN_DIMENSIONS, _MAX_INDEX_BYTES // photos))
    mean, components = np.zeros(width, np.float32), np.empty((0, width), np.float32)
    if dimensions < width:
        mean, components = _principal_components(run, groups, dimensions, reporter)
    nothing = np.empty((0, dimensions), np.float32)
    untrained = Codec(mean, components, nothing, nothing[:, 0], np.array([photos]))
    sample = np.concatenate([untrained.project(codes) for codes in _sample(run, groups, _TRAINING_ROWS, reporter)])
    reporter.update(Progress("dividing the codes into lists"))
    centres, ranges = _lists(sample if len(sample) else np.zeros((1, dimensions), np.float32), math.isqrt(photos))
    return replace(untrained, centres=centres, ranges=ranges)


def _principal_components(
    run: Run, groups: list[RowGroup], dimensions: int, reporter: Reporter
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from sklearn.decomposition import PCA

    rows = max(2 * dimensions, _MAX_FITTED_VALUES // run.code_width) // min(len(groups), _TRAINING_GROUPS) + 1
    sample = np.concatenate(list(_sample(run, groups, min(rows, _TRAINING_ROWS), reporter)))
    reporter.update(Progress("computing principal components"))
    pca = PCA(dimensions, random_state=_SEED).fit(sample)
    return pca.mean_.astype(np.float32), pca.components_.astype(np.float32)


def _sample(run: Run, groups: list[RowGroup], rows: int, reporter: Reporter) -> Iterator[NDArray[np.float32]]:
    """Yield normalised codes of a random sample of photos: of some row groups up to `rows` codes each."""
    random = np.random.default_rng(_SEED)
    chosen = np.sort(random.permutation(len(groups))[:_TRAINING_GROUPS])
    for done, group in enumerate(groups[number] for number in chosen.tolist()):
        reporter.update(Progress(f"reading codes to index: {done} of {len(chosen)} row groups"))
        batches = run.read_shard(group.shard, ["code"], group.number)
        codes = np.concatenate([codes_of(batch)[0] for batch in batches])
        yield Normalization(L2)(random.permutation(codes)[:rows])


def _lists(sample: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return `Codec.centres` and `Codec.ranges` for a sample [N, dimensions] of the codes to index."""
    import faiss

    dimensions = sample.shape[1]
    lists = max(1, min(count, len(sample) // _ROWS_PER_LIST))
    quantizer = faiss.IndexFlatL2(dimensions)
    index = faiss.IndexIVFScalarQuantizer(quantizer, dimensions, lists, faiss.ScalarQuantizer.QT_8bit)
    index.cp.niter = _ITERATIONS
    index.cp.max_points_per_centroid = 2 * _ROWS_PER_LIST
    index.train(sample)
    return quantizer.reconstruct_n(0, lists), faiss.vector_to_array(index.sq.trained)
