"""Labels that people gave: the folder that a photo is in, or tables of paths and labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.classifier.labels_file import LabelsFile, read_labels
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK
from flowers_batch.errors import InputError
from flowers_batch.storage.folder import split_file

FOLDER = "folder"
_EXAMPLES = 5


@dataclass(frozen=True)
class LabelCounts:
    """Labels and photos that do not match each other; `metrics.json` has them by these names.

    Attributes:
        without_code: Labelled photos that failed to encode.
        unknown_paths: Labels of paths that the codes folder does not have.
        unknown_examples: A few of those paths.
        empty_labels: Rows of the labels files with a path and no label.
        unlabelled: Photos with a code and no label.
    """

    without_code: int
    unknown_paths: int
    unknown_examples: list[str]
    empty_labels: int
    unlabelled: int


@dataclass(frozen=True)
class LabelledPhotos:
    """The labelled photos of a codes folder that have a code.

    Attributes:
        paths: Their keys.
        labels: str [N]: their classes' names.
        digests: S32 [N]: SHA-256 of their files.
        hashes: uint64 [N]: perceptual hashes.
        rows: int [N]: the row of each one's code in the codes folder, counted over all its shards; ascending.
        counts: What is not among them, and why.
    """

    paths: list[str]
    labels: NDArray[np.str_]
    digests: NDArray[np.bytes_]
    hashes: NDArray[np.uint64]
    rows: NDArray[np.int_]
    counts: LabelCounts

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int_]) -> LabelledPhotos:
        """Return some of them, by a mask or by positions, with the counts of all."""
        paths = [self.paths[number] for number in np.arange(len(self.paths))[chosen].tolist()]
        arrays = (self.labels[chosen], self.digests[chosen], self.hashes[chosen], self.rows[chosen])
        return LabelledPhotos(paths, *arrays, self.counts)

    @property
    def sha256(self) -> list[bytes]:
        """The digests with all their 32 bytes: NumPy strips trailing zeros from an array's elements."""
        return [digest.ljust(32, b"\0") for digest in self.digests.tolist()]

    @property
    def conflicts(self) -> list[dict[str, str]]:
        """Photos of equal bytes and different labels: for each such set, the labels by path."""
        by_digest = defaultdict[bytes, dict[str, str]](dict)
        for path, digest, label in zip(self.paths, self.digests, self.labels.tolist(), strict=True):
            by_digest[digest][path] = label
        return [labels for labels in by_digest.values() if len(set(labels.values())) > 1]


def read_labelled(run: Run, labels: Sequence[str]) -> LabelledPhotos:
    """Return the labelled photos of a codes folder, read as a stream and without their codes.

    Args:
        run: The codes folder.
        labels: Each is `folder`, or a CSV or Parquet file with the columns `path` and `label`; if several label a
            photo, the last one counts.

    Raises:
        InputError: No photo is labelled, or a file lacks the columns.
    """
    if not labels:
        raise no_labels()
    files = [None if file == FOLDER else read_labels(file) for file in labels]
    unmatched = set[str]().union(*(file.labels for file in files if file))
    kept: list[tuple[list[Any], ...]] = []  # of each batch: paths, digests, hashes, labels, rows
    without_code = unlabelled = before = 0
    example = "roses/1.jpg"
    for batch in run.batches(["path", "folder", "sha256", "phash", "status"]):
        ok = pc.equal(batch["status"], OK).to_numpy(zero_copy_only=False)
        paths = batch["path"].to_pylist()
        names = _labels_of(batch, files)
        unmatched.difference_update(paths)
        has_label = np.array([name is not None for name in names], bool)
        without_code += int((has_label & ~ok).sum())
        unlabelled += int((~has_label & ok).sum())
        rows = np.flatnonzero(has_label & ok)
        columns = [batch[name].take(pa.array(rows)).to_pylist() for name in ("path", "sha256", "phash")]
        kept.append((*columns, [names[row] for row in rows], (before + rows).tolist()))
        before += len(batch)
        example = next(iter(paths), example)
    found = [list(chain.from_iterable(part[column] for part in kept)) for column in range(5)]
    if not found[0]:
        raise _nothing_labelled(run, labels, example)
    empty = sum(file.empty for file in files if file)
    return LabelledPhotos(
        paths=found[0],
        labels=np.array(found[3]),
        digests=np.array(found[1], "S32"),
        hashes=np.array(found[2], np.uint64),
        rows=np.array(found[4], np.int64),
        counts=LabelCounts(without_code, len(unmatched), sorted(unmatched)[:_EXAMPLES], empty, unlabelled),
    )


def _labels_of(batch: pa.RecordBatch, files: Sequence[LabelsFile | None]) -> list[str | None]:
    """Return each row's label; None of `files` stands for the photo's folder."""
    paths = batch["path"].to_pylist()
    names: list[str | None] = [None] * len(paths)
    for file in files:
        new = [file.labels.get(path) for path in paths] if file else batch["folder"].to_pylist()
        names = [later or label for label, later in zip(names, new, strict=True)]
    return names


def _nothing_labelled(run: Run, labels: Sequence[str], example: str) -> InputError:
    if list(labels) == [FOLDER]:
        advice = "put each into a folder named for its class, or give `labels` a CSV file with path,label."
    else:
        advice = f"the paths in {labels[-1]} must be written as in the column `path` of the codes, such as {example}."
    return InputError(f"None of the photos in {run.folder.url} has a label: {advice}")


def no_labels() -> InputError:
    """Return the error of a training run that was not told where labels come from."""
    return InputError("Choose `labels`: `folder`, or a CSV or Parquet file with the columns path,label.")


def absolute_labels(labels: str) -> str:
    """Return a labels file's name in a form that is valid in any working directory; `folder` as it is."""
    if labels == FOLDER:
        return labels
    folder, name = split_file(labels)
    return folder.url_of(name)
