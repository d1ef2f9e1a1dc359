"""Where labels come from: the names by which `labels` gives it, and what there is to choose from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.classifier.folder_classes import (
    FolderLabels,
    count_folders,
    describe_choice,
    describe_classes,
    find_class_level,
)
from flowers_batch.classifier.labels_file import LabelsFile, read_labels
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import split_file

FOLDER = "folder"
_FOLDER_LEVEL = re.compile(r"folder:(-?[1-9][0-9]{0,3})")


def open_labels(run: Run, labels: Sequence[str], reporter: Reporter = NULL_REPORTER) -> list[FolderLabels | LabelsFile]:
    """Return the labels that `labels` names, for the photos of a codes folder.

    Args:
        run: The codes folder.
        labels: `folder`, `folder:N`, and files.
        reporter: Is told which level of folders `folder` takes, if that is not the first.

    Raises:
        InputError: `labels` is empty, a file is not valid, or `folder` can be read in several ways.
    """
    if not labels:
        raise _no_labels(_ok_paths(run))
    return [_open(run, name, reporter) for name in labels]


def check_labels(labels: Sequence[str], source: Source) -> None:
    """Check labels before their photos are encoded.

    Args:
        labels: As for `open_labels`.
        source: The photos.

    Raises:
        InputError: As `open_labels` raises it.
    """
    if not labels:
        raise _no_labels(_paths(source))
    for name in labels:
        if name == FOLDER:
            find_class_level(count_folders(_paths(source)))
        elif not _is_level(name):
            read_labels(name)


def absolute_labels(name: str) -> str:
    """Return a name of labels in a form that is valid in any working directory."""
    if name == FOLDER or _is_level(name):
        return name
    folder, file = split_file(name)
    return folder.url_of(file)


def _open(run: Run, name: str, reporter: Reporter) -> FolderLabels | LabelsFile:
    if name == FOLDER:
        return _labels_by_folder(run, reporter)
    if _is_level(name):
        return FolderLabels(int(name.partition(":")[2]))
    return read_labels(name)


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


def _no_labels(paths: Iterable[pa.Array]) -> InputError:
    """Return the error of a training run without labels, with what there is to choose from."""
    choices = [choice for choice in (describe_choice(count_folders(paths)),) if choice]
    return InputError(
        f"Say where labels come from: `labels` {', '.join([*choices, 'or a CSV or Parquet file with path,label'])}."
    )


def _ok_paths(run: Run) -> Iterator[pa.Array]:
    """Yield the paths of photos with a code: others may be missing from the folders that they were in."""
    for batch in run.batches(["path", "status"]):
        yield batch["path"].filter(pc.equal(batch["status"], OK))


def _paths(source: Source) -> Iterator[pa.Array]:
    for batch in source.batches():
        yield batch["path"]
