"""Approximate search in archives whose codes are too many to compare each of them with a query.

An inverted file: k-means divides the codes into lists, and a query is compared with the codes of the lists that are
nearest to it (Jegou, Douze and Schmid, 2011, "Product Quantization for Nearest Neighbor Search"). A value of a code
takes one byte. Long codes, and those of very large archives, are projected on principal components first; the nearest
photos are then compared again, by their codes on disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.normalization import L2, Normalization
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import codes_of
from flowers_batch.dataset.shard import Shard
from flowers_batch.progress import Progress, Reporter
from flowers_batch.search.codec import open_codec
from flowers_batch.search.exact import nearest_first
from flowers_batch.search.kept_arrays import identity_of, keep_arrays, read_arrays
from flowers_batch.search.row_reader import RowReader

_VERSION = 1
_MAX_HEADER_BYTES = 1 << 16
_SHARDS_PER_PART = 64
_LISTS_SEARCHED = 64
_COMPARED_AGAIN = 3  # times as many photos as are wanted, if codes are projected


class ApproximateIndex:
    """An inverted file of all codes of a run, in memory: a byte for each value of a code, and 8 bytes per photo.

    It is kept in parts in the folder `index` of the run's folder; a part whose shards have changed is made again.

    Args:
        run: The codes folder.
        reader: Reads rows of the run.
        reporter: Receives progress.
    """

    def __init__(self, run: Run, reader: RowReader, reporter: Reporter):
        self._run, self._reader = run, reader
        self._codec = open_codec(run, reader.groups, reporter)
        self._index = self._codec.inverted_file()
        first_row = 0
        for number, shards in enumerate(_parts(run)):
            reporter.update(Progress(f"opening the index: {first_row} of {run.manifest.images} photos"))
            positions, codes = self._part(number, shards, reporter)
            self._index.add_sa_codes(codes, first_row + positions)
            first_row += sum(shard.images for shard in shards)

    def search(self, queries: NDArray[np.float32], count: int) -> tuple[NDArray[np.int_], NDArray[np.float32]]:
        """Return the nearest photos of each query, as `similar.Index` says."""
        from faiss import SearchParametersIVF

        count = min(count, max(1, self._index.ntotal))  # faiss takes memory for as many as are wanted
        wanted = count * _COMPARED_AGAIN if self._codec.is_projection else count
        lists = max(_LISTS_SEARCHED, 4 * wanted * self._index.nlist // max(1, self._index.ntotal))
        parameters = SearchParametersIVF()
        parameters.nprobe = min(lists, self._index.nlist)
        squares, rows = self._index.search(self._codec.project(queries), wanted, params=parameters)
        found = int((rows >= 0).sum(1).min(initial=wanted))  # -1 where the lists have fewer
        rows, similarities = rows[:, :found], 1 - squares[:, :found] / 2
        if self._codec.is_projection and rows.size:
            similarities = self._compare(queries, rows)
        return nearest_first(rows, similarities, count)

    def _compare(self, queries: NDArray[np.float32], rows: NDArray[np.int_]) -> NDArray[np.float32]:
        """Return the exact similarities float32 [Q, N] of queries [Q, width] and photos, rows [Q, N]."""
        distinct, position = np.unique(rows, return_inverse=True)
        (batch,) = self._reader.take(distinct, ["code"]).combine_chunks().to_batches()
        found, ok = codes_of(batch)
        codes = np.zeros((len(distinct), self._run.code_width), np.float32)
        codes[ok] = Normalization(L2)(found)  # an index that a stranger changed may name photos without a code
        return np.take_along_axis(queries @ codes.T, position.reshape(rows.shape), axis=1)

    def _part(self, number: int, shards: list[Shard], reporter: Reporter) -> tuple[NDArray[np.int_], NDArray[np.uint8]]:
        """Return the photos of some shards that have a code: their positions, int [N], and encoded codes."""
        name = f"index/part-{number:06}.safetensors"
        identity = identity_of(self._run, shards, "index", _VERSION, number, self._codec.identity)
        images = sum(shard.images for shard in shards)
        max_bytes = images * (self._index.sa_code_size() + 8) + _MAX_HEADER_BYTES
        kept = read_arrays(self._run.folder, name, identity, max_bytes)
        if kept is not None and self._is_part(kept, images):
            return kept["positions"], kept["codes"]
        parts = list(self._encode(shards, reporter))
        positions = np.concatenate([positions for positions, _ in parts])
        codes = np.concatenate([codes for _, codes in parts])
        keep_arrays(self._run.folder, name, identity, {"positions": positions, "codes": codes})
        return positions, codes

    def _is_part(self, arrays: dict[str, NDArray[Any]], images: int) -> bool:
        """Return whether arrays from a file, which may be a stranger's, are what `_part` keeps."""
        if arrays.keys() != {"positions", "codes"}:
            return False
        positions, codes = arrays["positions"], arrays["codes"]
        if (positions.dtype, codes.dtype, positions.ndim) != (np.int64, np.uint8, 1):
            return False
        if codes.shape != (len(positions), self._index.sa_code_size()):
            return False
        lists = codes[:, : self._index.coarse_code_size()] @ (256 ** np.arange(self._index.coarse_code_size()))
        in_order = (np.diff(positions) > 0).all() and (positions[:1] >= 0).all() and (positions[-1:] < images).all()
        return bool(in_order and (lists < self._index.nlist).all())

    def _encode(self, shards: list[Shard], reporter: Reporter) -> Iterator[tuple[NDArray[np.int_], NDArray[np.uint8]]]:
        """Yield positions and encoded codes, row group by row group."""
        read = 0
        normalize = Normalization(L2)
        for shard in shards:
            for batch in self._run.read_shard(shard.number, ["code"]):
                codes, ok = codes_of(batch)
                yield read + np.flatnonzero(ok), self._index.sa_encode(self._codec.project(normalize(codes)))
                read += len(batch)
            reporter.update(Progress(f"indexing codes: shard {shard.number + 1} of {self._run.shards}"))


def _parts(run: Run) -> Iterator[list[Shard]]:
    shards = run.manifest.shards
    for start in range(0, len(shards), _SHARDS_PER_PART):
        yield shards[start : start + _SHARDS_PER_PART]
