"""Labels that travel with photos: a column of their table, or the members of their tar that are beside them.

`column:label` is the column `label` of a Parquet table. In a tar as WebDataset has it, `column:cls` is the text of
`0001.cls` for `0001.jpg`, and `column:json.label` is the field `label` of `0001.json`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyarrow import fs

from flowers_batch.classifier.file_labels import (
    UNREADABLE,
    FileLabels,
    TableLabels,
    TarLabels,
    columns_in,
    ending_and_field,
    no_column,
)
from flowers_batch.dataset.manifest import read_manifest, read_rows
from flowers_batch.dataset.manifest_part import MISSING
from flowers_batch.dataset.photo_sources import open_originals
from flowers_batch.dataset.run_folder import Run
from flowers_batch.errors import InputError
from flowers_batch.sources.containers import ContainerSource
from flowers_batch.sources.images import EPOCH
from flowers_batch.sources.relative_paths import foreign_path
from flowers_batch.sources.source import Source
from flowers_batch.sources.tables import TableSource
from flowers_batch.sources.tar_samples import has_ending
from flowers_batch.sources.tars import TarSource

_FILES_OPEN = 2  # a shard's photos may be in the end of a file and in the beginning of the next


class ColumnLabels:
    """Labels of a codes folder's photos, from the tables or tars that the photos are in.

    Args:
        run: The codes folder.
        name: The column.

    Attributes:
        labelled: Photos that have a label, of those asked for.
        unreadable: Photos whose label is not valid, of those asked for.

    Raises:
        InputError: The photos are in neither tables nor tars, or these no longer exist.
    """

    def __init__(self, run: Run, name: str):
        self._source = _container_of(open_originals(*run.photos), name)
        self._name = name
        self._rows = _ManifestRows(run)
        self._files: dict[str, FileLabels] = {}
        self.labelled = self.unreadable = 0

    def of(self, paths: pa.Array) -> list[str | None]:
        """Return the labels of the next rows of the codes folder.

        Raises:
            InputError: A file was replaced since it was encoded, lacks the column, or is not one of the source's.
        """
        rows = self._rows.take(paths)
        by_file = defaultdict[tuple[str, datetime], list[int]](list)
        for number, row in enumerate(rows):
            if row["action"] != MISSING and row["source"] is not None and row["offset"] is not None:
                by_file[row["source"], row["mtime"]].append(number)
        labels: list[str | None] = [None] * len(rows)
        for (name, changed), numbers in by_file.items():
            file = self._open(name, changed)
            found = file.of(*([rows[number][column] for number in numbers] for column in ("path", "offset")))
            for number, label in zip(numbers, found, strict=True):
                labels[number] = label
        self.unreadable += labels.count(UNREADABLE)
        self.labelled += sum(map(bool, labels))
        return [label or None for label in labels]

    def check_found(self) -> None:
        """Refuse a column that has labelled no photo.

        Raises:
            InputError: It has not.
        """
        if not self.labelled:
            raise no_column(self._source, self._name)

    def _open(self, name: str, changed: datetime) -> FileLabels:
        if name not in self._files:
            if not self._source.has_file(name):
                raise foreign_path(name, self._source.url)
            folder = self._source.folder
            found = folder.info(name)
            if found.type != fs.FileType.File or (found.mtime or EPOCH) != changed:
                fate = "was replaced" if found.type == fs.FileType.File else "was moved or deleted"
                raise InputError(
                    f"{folder.url_of(name)} {fate} since its photos were encoded, and `labels` column:{self._name} is "
                    "in it: restore it, or encode the photos again."
                )
            while len(self._files) >= _FILES_OPEN:
                del self._files[next(iter(self._files))]
            how = TableLabels if isinstance(self._source, TableSource) else TarLabels
            self._files[name] = how(self._source, name, self._name)
        return self._files[name]


class _ManifestRows:
    """Rows of a codes folder's manifest, in the order of its codes."""

    def __init__(self, run: Run):
        self._run = run
        self._shards = _shards_of(run)
        self._left: list[dict[str, Any]] = []

    def take(self, paths: pa.Array) -> list[dict[str, Any]]:
        """Return the next rows, those of the given paths."""
        while len(self._left) < len(paths) and (shard := next(self._shards, None)):
            self._left += shard
        rows, self._left = self._left[: len(paths)], self._left[len(paths) :]
        if [row["path"] for row in rows] != paths.to_pylist():
            raise InputError(
                f"{self._run.folder.url} is no longer complete: run the same `flowers-batch encode` again."
            )
        return rows


def _shards_of(run: Run) -> Iterator[list[dict[str, Any]]]:
    manifest = read_manifest(run.folder)
    for shard in manifest.shards if manifest else ():
        rows = read_rows(run.folder, shard)
        yield rows.select(["path", "source", "offset", "mtime", "action"]).to_pylist()


def check_column(source: Source, name: str) -> None:
    """Check that there is a column before the photos of a source are encoded.

    Raises:
        InputError: There is not.
    """
    container = _container_of(source, name)
    if name in columns_in(container):
        return
    ending, _ = ending_and_field(name)
    tars = container.folder.matching(container.name) if isinstance(container, TarSource) else []
    if not any(has_ending(container.folder, tar, ending) for tar in tars):
        raise no_column(container, name)


def _container_of(source: Source, name: str) -> ContainerSource:
    if isinstance(source, ContainerSource):
        return source
    raise InputError(
        f"`labels` column:{name} is for photos in tables and tars, and {source.url} is neither: choose `folder`, or a "
        "CSV or Parquet file with path,label."
    )
