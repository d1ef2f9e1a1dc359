"""How a model did on its held-out photos."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from flowers_batch.classifier.model_folder import read_metrics, read_split
from flowers_batch.pages import charts
from flowers_batch.pages.report.album import _CLASSES, _SHOWN, Thumbnail, _Album
from flowers_batch.pages.thumbnails import Photos
from flowers_batch.storage.folder import Folder

_MISTAKES = 10


def _held_out(model: Folder, photos: Photos, album: _Album) -> dict[str, Any]:
    """How a model did on the photos that it was neither trained nor tuned on."""
    metrics = read_metrics(model)
    classes, matrix = metrics["classes"], metrics["test"]["confusion_matrix"]
    rows = read_split(model, ["path", "label", "prediction", "probability", "split"])
    rows = rows.filter(pc.equal(rows["split"], "test")).sort_by([("probability", "descending"), ("path", "ascending")])
    by_cell = defaultdict[tuple[str, str], list[dict[str, Any]]](list)
    for row in rows.to_pylist():
        by_cell[row["label"], row["prediction"]].append(row)
    mistakes = _mistakes(matrix, classes)
    has_matrix = len(classes) <= _CLASSES
    wanted = by_cell if has_matrix else [(label, taken_for) for label, taken_for, _ in mistakes]
    cells = {}
    for label, taken_for in sorted(wanted, key=lambda cell: (cell[0] == cell[1], -len(by_cell[cell]), cell)):
        here = by_cell[label, taken_for]
        captions = {row["path"]: f"{row['probability']:.0%} sure" for row in here[:_SHOWN]}
        cells[label, taken_for] = {
            "id": f"cell-{classes.index(label)}-{classes.index(taken_for)}",
            "photos": len(here),
            "pictures": album.pictures(photos, captions),
        }
    per_class = metrics["test"]["per_class"]
    largest = heapq.nlargest(_CLASSES, classes, key=lambda name: per_class[name]["photos"])
    points = metrics["learning_curve"]
    has_curve = len(points) > 1  # of a network that was fine-tuned there is no other point
    return {
        "metrics": metrics,
        "has_matrix": has_matrix,
        "matrix": [[(count, count / max(1, sum(line))) for count in line] for line in matrix] if has_matrix else [],
        "cells": cells,
        "mistakes": mistakes,
        "classes": {name: _of_class(name, classes, by_cell, photos, album) for name in classes if name in largest},
        "calibration_chart": charts.calibration(metrics["calibration"]["curve"]),
        "learning_chart": charts.learning(points) if has_curve else None,
        "gain": points[-1]["accuracy"] - points[-2]["accuracy"] if has_curve else None,
    } | _tuning(metrics.get("tuning"))


def _tuning(tuning: dict[str, Any] | None) -> dict[str, Any]:
    """How a network was fine-tuned, if it was."""
    if tuning is None:
        return {"tuning": None}
    loss, accuracy = (charts.epochs(tuning["epochs"], name, tuning["best_epoch"]) for name in ("loss", "accuracy"))
    return {"tuning": tuning, "loss_chart": loss, "accuracy_chart": accuracy}


def _of_class(
    name: str,
    classes: Sequence[str],
    by_cell: dict[tuple[str, str], list[dict[str, Any]]],
    photos: Photos,
    album: _Album,
) -> list[tuple[str, list[Thumbnail]]]:
    """Kinds of a class's held-out photos: the surest, the least sure, and the wrongly labelled."""
    right = by_cell.get((name, name), [])
    other = [row for taken_for in classes if taken_for != name for row in by_cell.get((name, taken_for), [])]
    other.sort(key=lambda row: -row["probability"])
    surest, unsure = right[:_SHOWN], right[_SHOWN:][-_SHOWN:][::-1]
    kinds = {
        "Right, the surest": {row["path"]: f"{row['probability']:.0%} sure" for row in surest},
        "Right, the least sure": {row["path"]: f"{row['probability']:.0%} sure" for row in unsure},
        "Wrong, the surest": {
            row["path"]: f"taken for {row['prediction']}, {row['probability']:.0%} sure" for row in other[:_SHOWN]
        },
    }
    return [(kind, album.pictures(photos, captions)) for kind, captions in kinds.items() if captions]


def _mistakes(matrix: list[list[int]], classes: list[str]) -> list[tuple[str, str, int]]:
    """The commonest mistakes: true class, predicted class, photos."""
    counts = [
        (classes[row], classes[column], count)
        for row, line in enumerate(matrix)
        for column, count in enumerate(line)
        if count and row != column
    ]
    return heapq.nlargest(_MISTAKES, counts, key=lambda mistake: mistake[2])
