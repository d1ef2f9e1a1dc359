"""How well a model does on its held-out photos."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from flowers_batch.classifier.chosen import are_random
from flowers_batch.classifier.confusion import dense_matrix, most_common_confusions
from flowers_batch.classifier.left_out_classes import sentences_on_left_out_classes
from flowers_batch.classifier.metrics_sentences import (
    chosen_sentences,
    disagreement_sentences,
    keyword_sentences,
    learning_sentence,
    promise_sentences,
)
from flowers_batch.classifier.model_folder import read_metrics, read_split
from flowers_batch.pages import charts
from flowers_batch.pages.photos import Photos
from flowers_batch.pages.report.album import Album, Thumbnail
from flowers_batch.storage.folder import Folder

# Held-out photos by label and prediction, the most confident first.
Cells = dict[tuple[str, str], list[dict[str, Any]]]


def describe_held_out(model: Folder, photos: Photos, album: Album) -> dict[str, Any]:
    """Return what the template shows of the photos that a model was neither trained nor validated on.

    Args:
        model: The model folder.
        photos: The photos of its codes.
        album: Gets the thumbnails.
    """
    metrics = read_metrics(model)
    content = {
        "metrics": metrics,
        "scores": None,
        "chosen": chosen_sentences(metrics),
        "disagreements": disagreement_sentences(metrics),
        "keywords": keyword_sentences(metrics),
        "promise": promise_sentences(metrics["unknown"]),
        "kept_classes": list(metrics["unknown"].get("per_class", {}).items())[: album.limits.class_rows],
    } | _describe_tuning(metrics.get("tuning"))
    return content | _describe_scores(model, metrics, photos, album) if metrics["accuracy_of"] else content


def _describe_scores(model: Folder, metrics: dict[str, Any], photos: Photos, album: Album) -> dict[str, Any]:
    """Return what the template shows of the accuracy, if it is known, and of the photos behind it."""
    scores = metrics[metrics["accuracy_of"]]
    is_cross_validated = metrics["accuracy_of"] != "test"
    classes, confusion = metrics["classes"], scores["confusion"]
    cells = _read_cells(model, "train" if is_cross_validated else "test")
    confusions = most_common_confusions(confusion, classes, album.limits.confusions)
    has_matrix = len(classes) <= album.limits.classes
    shown = list(cells) if has_matrix else [(label, prediction) for label, prediction, _ in confusions]
    matrix = dense_matrix(confusion, len(classes)) if has_matrix else []
    per_class = scores["per_class"]
    largest = heapq.nlargest(album.limits.classes, classes, key=lambda name: per_class[name]["photos"])
    points = metrics["learning_curve"]
    has_curve = len(points) > 1  # a fine-tuned network has a single point
    return {
        "scores": scores,
        "is_cross_validated": is_cross_validated,
        "left_out_classes": sentences_on_left_out_classes(metrics["left_out_classes"]),
        "has_matrix": has_matrix,
        "matrix": [[(count, count / max(1, sum(line))) for count in line] for line in matrix],
        "cells": _show_cells(shown, cells, classes, photos, album),
        "confusions": confusions,
        "class_rows": _table_rows(per_class, album.limits.class_rows),
        "classes": {name: _show_class(name, classes, cells, photos, album) for name in classes if name in largest},
        "calibration_chart": charts.calibration(metrics["calibration"]["curve"]),
        "learning_chart": charts.learning(points) if has_curve else None,
        "learning": learning_sentence(metrics),
    }


def _table_rows(per_class: dict[str, dict[str, Any]], count: int) -> list[tuple[str, dict[str, Any]]]:
    """Return classes and their scores: all in their order, or the `count` with the lowest F1, the lowest first."""
    rows = list(per_class.items())
    return (
        rows if len(rows) <= count else heapq.nsmallest(count, rows, key=lambda row: (row[1]["f1"], -row[1]["photos"]))
    )


def _read_cells(model: Folder, split: str) -> Cells:
    rows = read_split(model, ["path", "label", "prediction", "probability", "split", "chosen"])
    is_judged = pc.and_(pc.equal(rows["split"], split), are_random(rows["chosen"].to_pylist()))
    rows = rows.filter(is_judged).sort_by([("probability", "descending"), ("path", "ascending")])
    cells: Cells = defaultdict(list)
    for row in rows.to_pylist():
        cells[row["label"], row["prediction"]].append(row)
    return cells


def _show_cells(
    shown: list[tuple[str, str]], cells: Cells, classes: list[str], photos: Photos, album: Album
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the cells that are shown, the wrong ones first, so that they get thumbnails before the page is full."""
    content = {}
    for label, prediction in sorted(shown, key=lambda cell: (cell[0] == cell[1], -len(cells[cell]), cell)):
        rows = cells[label, prediction]
        captions = {row["path"]: _confidence(row) for row in rows[: album.limits.photos]}
        content[label, prediction] = {
            "id": f"cell-{classes.index(label)}-{classes.index(prediction)}",
            "photos": len(rows),
            "pictures": album.add(photos, captions),
        }
    return content


def _show_class(
    name: str, classes: Sequence[str], cells: Cells, photos: Photos, album: Album
) -> list[tuple[str, list[Thumbnail]]]:
    """Return groups of a class's held-out photos: right or wrong, the most or the least confident."""
    limit = album.limits.photos
    right = cells.get((name, name), [])
    wrong = [row for prediction in classes if prediction != name for row in cells.get((name, prediction), [])]
    wrong.sort(key=lambda row: -row["probability"])
    least_confident = right[limit:][-limit:][::-1]
    groups = {
        "Right, most confident": {row["path"]: _confidence(row) for row in right[:limit]},
        "Right, least confident": {row["path"]: _confidence(row) for row in least_confident},
        "Wrong, most confident": {
            row["path"]: f"predicted as {row['prediction']}, {_confidence(row)}" for row in wrong[:limit]
        },
    }
    return [(kind, album.add(photos, captions)) for kind, captions in groups.items() if captions]


def _confidence(row: dict[str, Any]) -> str:
    return f"{row['probability']:.0%} confident"


def _describe_tuning(tuning: dict[str, Any] | None) -> dict[str, Any]:
    """Return what the template shows of a fine-tuning run; `tuning` is None if there was none."""
    if tuning is None:
        return {"tuning": None}
    loss, accuracy = (charts.epochs(tuning["epochs"], name, tuning["best_epoch"]) for name in ("loss", "accuracy"))
    return {"tuning": tuning, "loss_chart": loss, "accuracy_chart": accuracy}
