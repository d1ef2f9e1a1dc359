"""Labels that people gave: the folder that a photo is in, or tables of paths and labels."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK
from flowers_batch.dataset.spreadsheet import cell_of, text_of
from flowers_batch.errors import InputError
from flowers_batch.storage.folder import PathOrUrl, split_file

FOLDER = "folder"
_EXAMPLES = 5


@dataclass(frozen=True)
class Labelled:
    """The labelled photos of a codes folder that have a code.

    Attributes:
        paths: Their keys.
        labels: Their classes' names, as an array of str.
        digests: S32 [N]: SHA-256 of their files.
        hashes: uint64 [N]: perceptual hashes.
        rows: int [N]: the row of the codes folder, counted over all its shards, that each one's code lies in.
        without_code: Labelled photos that failed.
        unknown_paths: Labels for paths that the codes folder does not have.
        unknown_examples: A few of those paths.
        empty_labels: Rows of the labels' files that name a photo and no label.
        unlabelled: Photos with a code and no label.
    """

    paths: list[str]
    labels: NDArray[np.str_]
    digests: NDArray[np.bytes_]
    hashes: NDArray[np.uint64]
    rows: NDArray[np.int_]
    without_code: int
    unknown_paths: int
    unknown_examples: list[str]
    empty_labels: int
    unlabelled: int

    @property
    def sha256(self) -> list[bytes]:
        """The digests in all their 32 bytes: elements of an array lose zeros at their end."""
        return [digest.ljust(32, b"\0") for digest in self.digests.tolist()]

    @property
    def conflicts(self) -> list[dict[str, str]]:
        """Photos of equal bytes that have different labels: the labels by path, of each set of such photos."""
        alike = defaultdict[bytes, dict[str, str]](dict)
        for path, digest, label in zip(self.paths, self.digests, self.labels.tolist(), strict=True):
            alike[digest][path] = label
        return [labels for labels in alike.values() if len(set(labels.values())) > 1]


def read_labelled(run: Run, labels: Sequence[str]) -> Labelled:
    """Streams a codes folder, but for the codes, and keeps what is labelled.

    Args:
        run: The codes folder.
        labels: Each `folder`, or a CSV or Parquet file with the columns `path` and `label`; where several label a
            photo, the last does.

    Raises:
        InputError: There are no labels, or a file has none of the columns.
    """
    files = [None if file == FOLDER else read_labels(file) for file in labels]
    given = set[str]().union(*(file.labels for file in files if file))
    kept: list[tuple[list[Any], ...]] = []  # by batch: paths, digests, hashes, labels, rows
    without_code = unlabelled = before = 0
    path = "roses/1.jpg"  # an example of one
    for batch in run.batches(["path", "folder", "sha256", "phash", "status"]):
        ok = pc.equal(batch["status"], OK).to_numpy(zero_copy_only=False)
        paths = batch["path"].to_pylist()
        names: list[str | None] = [None] * len(paths)
        for file in files:
            new = [file.labels.get(path) for path in paths] if file else batch["folder"].to_pylist()
            names = [later or label for label, later in zip(names, new, strict=True)]
        given.difference_update(paths)
        has_label = np.array([name is not None for name in names], bool)
        without_code += int((has_label & ~ok).sum())
        unlabelled += int((~has_label & ok).sum())
        rows = np.flatnonzero(has_label & ok)
        columns = [batch[name].take(pa.array(rows)).to_pylist() for name in ("path", "sha256", "phash")]
        kept.append((*columns, [names[row] for row in rows], (before + rows).tolist()))
        before += len(batch)
        path = next(iter(paths), path)
    found = [list(chain.from_iterable(part[column] for part in kept)) for column in range(5)]
    if not found[0]:
        raise InputError(
            f"None of the photos in {run.folder.url} has a label: "
            + (
                "put each into a folder named for its class, or give `labels` a CSV file with path,label."
                if list(labels) == [FOLDER]
                else f"the paths in {labels[-1]} must be written as in the column `path` of the codes, such as {path}."
            )
        )
    return Labelled(
        paths=found[0],
        labels=np.array(found[3]),
        digests=np.array(found[1], "S32"),
        hashes=np.array(found[2], np.uint64),
        rows=np.array(found[4], np.int64),
        without_code=without_code,
        unknown_paths=len(given),
        unknown_examples=sorted(given)[:_EXAMPLES],
        empty_labels=sum(file.empty for file in files if file),
        unlabelled=unlabelled,
    )


@dataclass(frozen=True)
class LabelsFile:
    """What a file says.

    Attributes:
        labels: By path.
        empty: Rows that name a photo and no label.
    """

    labels: dict[str, str]
    empty: int


def read_labels(file: str) -> LabelsFile:
    """Reads `path,label` from a CSV (UTF-8, with a header) or Parquet file; of equal paths the last one counts.

    Raises:
        InputError: There is no such file, or it has no such columns.
    """
    folder, name = split_file(file)
    if folder.filesystem.get_file_info(folder.at(name)).type != fs.FileType.File:
        raise InputError(f"There is no labels file {file}: give `folder`, or a CSV or Parquet file with path,label.")
    try:
        with folder.open(name) as stream:
            if name.lower().endswith(".parquet"):
                rows = pq.read_table(stream, columns=["path", "label"]).to_pylist()
            else:
                table = csv.DictReader(io.StringIO(stream.read().decode("utf-8-sig"), newline=""))
                if not {"path", "label"} <= set(table.fieldnames or ()):
                    raise KeyError
                rows = [{name: text_of(row[name] or "") for name in ("path", "label")} for row in table]
        labels = [(str(row["path"]), _label(row["label"])) for row in rows]
    except (pa.ArrowInvalid, KeyError, csv.Error, UnicodeDecodeError):
        raise not_labels(file) from None
    return LabelsFile({path: label for path, label in labels if label}, sum(not label for _, label in labels))


def not_labels(file: str) -> InputError:
    """What is said of a file that is something else."""
    return InputError(
        f"{file} is not a labels file: it must be CSV (UTF-8) or Parquet with the columns path and label."
    )


def write_labels(out: PathOrUrl, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Writes a CSV file, `path` and `label` among its columns, that spreadsheets and `read_labels` read."""
    folder, name = split_file(out)
    with folder.publish(name) as scratch, open(scratch, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([cell_of(row[column]) for column in columns] for row in rows)


def lasting(labels: str) -> str:
    """The same labels, by a name that is right from any folder."""
    if labels == FOLDER:
        return labels
    folder, name = split_file(labels)
    return folder.url_of(name)


def _label(value: Any) -> str:
    """A label as text; empty where there is none. Numbers are labels too, 0 among them."""
    return "" if value is None or value != value else str(value).strip()
