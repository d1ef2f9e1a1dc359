"""Where labels come from: the names by which `labels` gives it, and what there is to choose from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.classifier.column_labels import ColumnLabels, check_column
from flowers_batch.classifier.file_labels import columns_in
from flowers_batch.classifier.folder_classes import (
    FolderLabels,
    count_folders,
    describe_choice,
    describe_classes,
    find_class_level,
)
from flowers_batch.classifier.keyword_labels import check_keywords, read_keyword_labels
from flowers_batch.classifier.label_paths import match_labels
from flowers_batch.classifier.labels_file import LabelsFile, read_labels
from flowers_batch.config import XMP
from flowers_batch.dataset.photo_sources import open_photos
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.sources.source import Source
from flowers_batch.storage.local_files import is_utf8
from flowers_batch.storage.opening import split_file

FOLDER = "folder"
_COLUMN = "column:"
_COLUMNS_SHOWN = 10
_FOLDER_LEVEL = re.compile(r"folder:(-?[1-9][0-9]{0,3})")


LabelSource = FolderLabels | ColumnLabels | LabelsFile


def open_labels(
    run: Run, labels: Sequence[str], classes: Sequence[str] = (), reporter: Reporter = NULL_REPORTER
) -> list[LabelSource]:
    """Return the labels that `labels` names, for the photos of a codes folder.

    Args:
        run: The codes folder.
        labels: `folder`, `folder:N`, `column:NAME`, `xmp`, and files.
        classes: For `xmp`: which keywords are classes.
        reporter: Receives which level of folders `folder` takes, if that is not the first; and progress.

    Raises:
        InputError: `labels` is empty, a file is not valid, there is no such column, `folder` can be read in several
            ways, or no photo has a keyword that is a class.
    """
    if not labels:
        raise _no_labels(_ok_paths(run), _source_of(run))
    return [_open(run, name, classes, reporter) for name in labels]


def check_labels(labels: Sequence[str], source: Source, classes: Sequence[str] = ()) -> None:
    """Check labels before their photos are encoded.

    Args:
        labels: As for `open_labels`.
        source: The photos.
        classes: As for `open_labels`.

    Raises:
        InputError: As `open_labels` raises it.
    """
    if not labels:
        raise _no_labels(_paths(source), source)
    for name in labels:
        if name == FOLDER:
            if not find_class_level(count_folders(_paths(source))) and len(labels) == 1:
                raise InputError(
                    f"No photo of {source.url} is in a folder: put each into a folder named for its class, or give "
                    "`labels` a CSV file with path,label."
                )
        elif name == XMP:
            check_keywords(source, classes)
        elif column := _column(name):
            check_column(source, column)
        elif not _is_level(name):
            read_labels(name)


def is_by_folder(name: str) -> bool:
    """Return whether a name of labels is `folder` or `folder:N`."""
    return name == FOLDER or _is_level(name)


def folder_choice(run: Run) -> str:
    """Return how the folders of a run's photos can be read as classes; empty if no photo is in a folder."""
    return describe_choice(count_folders(_ok_paths(run)))


def absolute_labels(name: str) -> str:
    """Return a name of labels in a form that is valid in any working directory."""
    if is_by_folder(name) or name == XMP or _column(name):
        return name
    folder, file = split_file(name)
    return folder.url_of(file)


def _open(run: Run, name: str, classes: Sequence[str], reporter: Reporter) -> LabelSource:
    if name == XMP:
        return read_keyword_labels(run, classes, reporter)
    if name == FOLDER:
        return _labels_by_folder(run, reporter)
    if _is_level(name):
        return FolderLabels(int(name.partition(":")[2]))
    if column := _column(name):
        return ColumnLabels(run, column)
    file = read_labels(name, reporter)
    rows = match_labels({path: (label, file.chosen.get(path, "")) for path, label in file.labels.items()}, run)
    labels, chosen = ({path: row[column] for path, row in rows.items() if row[column]} for column in range(2))
    return replace(file, labels=labels, chosen=chosen)


def _labels_by_folder(run: Run, reporter: Reporter) -> FolderLabels:
    folders = count_folders(_ok_paths(run))
    level = find_class_level(folders) or 1
    if level > 1:
        reporter.message(f"the classes are the folders of level {level}: {describe_classes(folders, level)}")
    return FolderLabels(level)


def _is_level(name: str) -> bool:
    if not name.startswith("folder:"):
        return False
    if not _FOLDER_LEVEL.fullmatch(name):
        raise InputError(
            "`labels` folder:N must have a number: 1 is the first folder below the root, -1 the photo's own. "
            f"Received: {name}."
        )
    return True


def _column(name: str) -> str:
    """Return the column that a name of labels names; empty if it names none."""
    if not name.startswith(_COLUMN):
        return ""
    if name == _COLUMN or not is_utf8(os.fsencode(name)):
        raise InputError("`labels` column:NAME must have a name in UTF-8, such as column:label.")
    return name.removeprefix(_COLUMN)


def _no_labels(paths: Iterable[pa.Array], source: Source | None) -> InputError:
    """Return the error of a training run without labels, with what there is to choose from."""
    folders = describe_choice(count_folders(paths))
    columns = [f"{_COLUMN}{name}" for name in (columns_in(source) if source else [])]
    found = [*([folders] if folders else []), *columns[:_COLUMNS_SHOWN]]
    choices = ", ".join([*found, f"{XMP} (keywords in the photos, with `classes`)"])
    return InputError(f"Say where labels come from: `labels` {choices}, or a CSV or Parquet file with path,label.")


def _source_of(run: Run) -> Source | None:
    """Return where a codes folder's photos were read from; None if that no longer exists."""
    try:
        return open_photos(*run.photos)
    except InputError:
        return None


def _ok_paths(run: Run) -> Iterator[pa.Array]:
    """Yield the paths of photos with a code: others may be missing from the folders that they were in."""
    for batch in run.batches(["path", "status"]):
        yield batch["path"].filter(pc.equal(batch["status"], OK))


def _paths(source: Source) -> Iterator[pa.Array]:
    for batch in source.batches():
        yield batch["path"]
