"""Similar photos: those whose codes are nearest to given ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.normalization import L2, Normalization
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import codes_of
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.search.approximate import ApproximateIndex
from flowers_batch.search.exact import ExactIndex
from flowers_batch.search.row_reader import RowReader

MAX_EXACT_VALUES = 1 << 27  # of all codes, which are in memory: 0.5 GB, a quarter of a million codes of 512 values
_normalize = Normalization(L2)

Neighbours = tuple[NDArray[np.int_], NDArray[np.float32]]


class Index(Protocol):
    """Codes that can be searched; several threads may do so at once."""

    def search(self, queries: NDArray[np.float32], count: int) -> Neighbours:
        """Return the nearest photos of each query.

        Args:
            queries: float32 [Q, width], each of norm 1.
            count: How many photos to find.

        Returns:
            Rows int [Q, count] and similarities float32 [Q, count], the nearest first; fewer columns if there are fewer
            photos.
        """


class CodeSearch:
    """Finds photos by their codes. Several threads may use it at once.

    The similarity of two photos is the cosine of the angle between their codes: 1 for equal codes. Up to a quarter of a
    million codes of 512 values are compared exactly; more are searched by an index that is kept in the run's folder.

    Args:
        run: The codes folder.
        reporter: Receives the progress of reading the codes, or of making the index.

    Attributes:
        reader: Reads rows of the run.
    """

    def __init__(self, run: Run, reporter: Reporter = NULL_REPORTER):
        self.reader = RowReader(run)
        is_small = run.manifest.images * run.code_width <= MAX_EXACT_VALUES
        self._index: Index = ExactIndex(run, reporter) if is_small else ApproximateIndex(run, self.reader, reporter)

    def codes_of(self, rows: Sequence[int]) -> NDArray[np.floating]:
        """Return the codes [N, width] of photos by their rows.

        Raises:
            InputError: A photo has no code, since it could not be read.
        """
        (batch,) = self.reader.take(np.array(rows, np.int64), ["path", "code"]).combine_chunks().to_batches()
        codes, ok = codes_of(batch)
        if not ok.all():
            raise InputError(f"{batch['path'][int(ok.argmin())]} has no code, since it could not be read.")
        return codes

    def nearest_to_rows(self, rows: Sequence[int], count: int) -> Neighbours:
        """Return the photos that are nearest to some photos of the archive, without these themselves.

        Args:
            rows: The photos' rows, at least one; of several, the mean of their normalised codes is compared.
            count: How many photos to find.

        Returns:
            Rows int [count] and similarities float32 [count], the nearest first; fewer if the archive has fewer.

        Raises:
            InputError: A photo has no code, since it could not be read.
        """
        return self.nearest_to_codes(self.codes_of(rows), count, rows)

    def nearest_to_codes(self, codes: NDArray[np.floating], count: int, without: Sequence[int] = ()) -> Neighbours:
        """Return the photos that are nearest to the mean of normalised codes [N, width].

        Args:
            codes: From a network with the fingerprint of the archive's codes.
            count: How many photos to find.
            without: Rows of photos that are left out.

        Returns:
            As `nearest_to_rows`.
        """
        left_out = np.unique(np.array(without, np.int64))
        found, similarities = self.nearest(_normalize(codes).mean(0, keepdims=True), count + len(left_out))
        others = np.flatnonzero(~np.isin(found[0], left_out))[:count]
        return found[0, others], similarities[0, others]

    def nearest(self, codes: NDArray[np.floating], count: int) -> Neighbours:
        """Return the photos that are nearest to each of some codes [Q, width], as `Index.search` does."""
        return self._index.search(_normalize(codes), count)
