"""Publication of an evaluated head, and of what it was trained on, as a model folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowers_batch.classifier.calibration import TopLabels
from flowers_batch.classifier.evaluated_head import EvaluatedHead
from flowers_batch.classifier.labelled_split import LabelledSplit
from flowers_batch.classifier.labels import LabelledPhotos
from flowers_batch.classifier.labels_file import write_labels
from flowers_batch.classifier.model_folder import (
    DISAGREEMENTS,
    LABELS,
    MODEL,
    SEVERAL_CLASSES,
    SPLIT,
    Model,
    read_split,
    save_model,
    write_metrics,
)
from flowers_batch.classifier.split import SPLITS, TEST
from flowers_batch.dataset.job import library_versions
from flowers_batch.dataset.run_folder import Run
from flowers_batch.errors import FlowersError
from flowers_batch.storage.folder import Folder


def publish_model(
    folder: Folder, run: Run, labelled: LabelledSplit, evaluated: EvaluatedHead, training: dict[str, Any]
) -> None:
    """Write a model folder; the caller holds its lock.

    Args:
        folder: The model folder.
        run: The codes folder that the head was trained on.
        labelled: The labelled photos.
        evaluated: The head.
        training: The settings of the training: `Model.training`.
    """
    metrics = evaluated.metrics
    metrics["split"]["moved"] = _count_moved(folder, labelled.photos.paths, labelled.splits)
    # A half-written model must not pass for a complete one: model.json is deleted first and written last.
    folder.delete(MODEL)
    _write_labels(folder, labelled.all_photos)
    _write_disagreements(folder, metrics["disagreements"])
    _write_several_classes(folder, metrics["several_classes"])
    _write_split(folder, labelled, evaluated.top)
    write_metrics(folder, metrics)
    save_model(
        folder,
        Model(
            head=evaluated.head,
            fingerprint=run.job.fingerprint,
            weights=run.job.weights,
            codes=run.folder.url,
            images=run.job.images,
            split={"photos": metrics["photos"], "groups": metrics["split"]["groups"]},
            training=training,
            versions=library_versions(),
        ),
    )


def _count_moved(model: Folder, paths: list[str], splits: NDArray[np.int_]) -> int:
    """Return how many photos have become test photos, or no longer are, since the model was last trained.

    Their groups have merged. Whether a photo trains or validates depends on the head, too.
    """
    try:
        table = read_split(model, ["path", "split"])
    except FlowersError:  # missing or unreadable: it is about to be rewritten
        return 0
    before = dict(zip(*(table[name].to_pylist() for name in ("path", "split")), strict=True))
    test = SPLITS[TEST]
    pairs = zip(paths, (splits == TEST).tolist(), strict=True)
    return sum((before[path] == test) != is_test for path, is_test in pairs if path in before)


def _write_labels(folder: Folder, photos: LabelledPhotos) -> None:
    """Write the copy of the labels that a later training, or a search for wrong labels, starts from."""
    table = pa.table(
        {
            "path": photos.paths,
            "label": photos.labels.tolist(),
            "sha256": pa.array(photos.sha256, pa.binary(32)),
            "chosen": photos.chosen.tolist(),
        }
    )
    with folder.publish(LABELS) as scratch:
        pq.write_table(table, scratch, compression="zstd", write_page_checksum=True)


def _write_disagreements(folder: Folder, disagreements: Sequence[dict[str, Any]]) -> None:
    """Write the photos with different labels in different files as a labels file; without any, delete the file."""
    files = list(dict.fromkeys(name for each in disagreements for name in each["labels"]))
    if not files:
        folder.delete(DISAGREEMENTS)
        return
    rows = [
        {"path": each["path"], "label": list(each["labels"].values())[-1]}
        | {f"label in {name}": each["labels"].get(name) for name in files}
        for each in disagreements
    ]
    write_labels(folder.url_of(DISAGREEMENTS), list(rows[0]), rows)


def _write_several_classes(folder: Folder, photos: Sequence[dict[str, Any]]) -> None:
    """Write the photos whose keywords stand for several classes as a labels file; without any, delete the file."""
    if not photos:
        folder.delete(SEVERAL_CLASSES)
        return
    rows = ({"path": photo["path"], "label": "", "classes": "; ".join(photo["classes"])} for photo in photos)
    write_labels(folder.url_of(SEVERAL_CLASSES), ("path", "label", "classes"), rows)


def _write_split(folder: Folder, labelled: LabelledSplit, top: TopLabels) -> None:
    photos = labelled.photos
    table = pa.table(
        {
            "path": photos.paths,
            "label": photos.labels.tolist(),
            "sha256": pa.array(photos.sha256, pa.binary(32)),
            "group": labelled.codes.groups,
            "split": [SPLITS[split] for split in labelled.splits],
            "prediction": np.array(labelled.classes)[top.labels].tolist(),
            "probability": top.probabilities,
            "chosen": photos.chosen.tolist(),
        }
    )
    with folder.publish(SPLIT) as scratch:
        pq.write_table(table, scratch, compression="zstd", write_page_checksum=True)
