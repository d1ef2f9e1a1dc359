"""Labels of several sources, merged: which label counts, how its photo was chosen, and where files disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from flowers_batch.classifier.chosen import NOT_RECORDED, combined
from flowers_batch.classifier.label_sources import LabelSource
from flowers_batch.classifier.labels_file import LabelsFile


def merge_labels(paths: pa.Array, sources: Sequence[LabelSource]) -> tuple[list[str | None], list[str | None]]:
    """Return the label of each photo by the last source that has one, and how it was chosen; None without a label.

    Args:
        paths: The photos' paths, string [N].
        sources: As `open_labels` returns them.
    """
    labels: list[str | None] = [None] * len(paths)
    chosen: list[str | None] = [None] * len(paths)
    for source in sources:
        names = paths.to_pylist() if isinstance(source, LabelsFile) else []
        new = [source.labels.get(path) for path in names] if isinstance(source, LabelsFile) else source.of(paths)
        ways = source.chosen if isinstance(source, LabelsFile) else {}
        for row, label in enumerate(new):
            if label:
                labels[row] = label
                chosen[row] = combined(chosen[row], ways.get(names[row], NOT_RECORDED) if ways else NOT_RECORDED)
    return labels, chosen


def find_disagreements(files: Mapping[str, LabelsFile]) -> list[dict[str, Any]]:
    """Return the photos that some files label differently, sorted: `path`, and `labels` by the file's name, in order.

    Args:
        files: Labels files by name, those that count more later.
    """
    first: dict[str, str] = {}
    differing = set[str]()
    for file in files.values():
        differing.update(path for path, label in file.labels.items() if first.setdefault(path, label) != label)
    return [
        {"path": path, "labels": {name: file.labels[path] for name, file in files.items() if path in file.labels}}
        for path in sorted(differing)
    ]
