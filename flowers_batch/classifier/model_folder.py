"""The model folder: saving and loading a head and what it was trained on. No pickle."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load, save

from flowers_batch.classifier.chosen import NOT_RECORDED
from flowers_batch.classifier.confusion import with_sparse_confusion
from flowers_batch.classifier.head import Head, head_from_arrays
from flowers_batch.classifier.left_out_classes import LeftOutClasses
from flowers_batch.classifier.model_shapes import METRICS_SHAPE, MODEL_SHAPE, check_metrics
from flowers_batch.classifier.split import SPLITS
from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.following import follow
from flowers_batch.dataset.format_version import in_current_format, with_format
from flowers_batch.errors import InputError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.json_values import check_shape
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.io_errors import raise_io_error, reading_error
from flowers_batch.storage.json_files import read_json, write_json
from flowers_batch.storage.local_files import reason_of
from flowers_batch.storage.opening import PathOrUrl, open_folder
from flowers_batch.storage.parquet_files import open_parquet
from flowers_batch.storage.urls import scheme_of

ARRAYS, MODEL, METRICS, SPLIT = "head.safetensors", "model.json", "metrics.json", "split.parquet"
LABELS = "labels.parquet"  # all labels that the training read: a labels file
DISAGREEMENTS = "disagreements.csv"  # photos with different labels in different files, to be settled: a labels file
SEVERAL_CLASSES = "several-classes.csv"  # photos whose keywords stand for several classes: a labels file to fill in
# Of a fine-tuned network: its weights, and the codes folder that it made. They are in the model folder, and
# `model.json` names them without a path, so that the folder can be moved.
NETWORK, OWN_CODES = "network.safetensors", "codes"
_MAX_METRICS_BYTES = 256 << 20  # version 0.1 wrote the whole confusion matrix, a line for each cell
_COLUMNS = {  # that are read of `split.parquet` and `labels.parquet`
    "path": pa.string(),
    "label": pa.string(),
    "sha256": pa.binary(32),
    "split": pa.string(),
    "prediction": pa.string(),
    "probability": pa.float32(),
    "chosen": pa.string(),
}
_DEFAULTS = {"chosen": NOT_RECORDED}  # of columns that version 0.1 did not write
_LIST_OF_NUMBERS = re.compile(r"\[\n([\d\s.,eE+-]*)\]")  # of indented JSON, in which no string has a line break


@dataclass(frozen=True)
class Model:
    """A head, and a description of its training: `head.safetensors` and `model.json`.

    Attributes:
        head: The classifier.
        fingerprint: Of the codes that it was trained on, and that it can label.
        weights: The name of the network's weights.
        codes: The codes folder that it was trained on.
        images: The source of the images of those codes.
        split: How the labelled photos were split: photos of each split, and groups.
        training: The kind of the head, and the settings of its training.
        versions: Versions of the libraries that trained it.
    """

    head: Head
    fingerprint: Fingerprint
    weights: str
    codes: str
    images: str
    split: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, str]


def save_model(folder: Folder, model: Model) -> None:
    """Publish `head.safetensors`, then `model.json`, which contains the head's identity."""
    head = model.head
    with folder.publish(ARRAYS) as scratch:
        Path(scratch).write_bytes(save({name: np.ascontiguousarray(array) for name, array in head.arrays.items()}))
    description = {
        "classes": head.classes,
        "normalization": head.normalization.name,
        "temperature": head.temperature,
        "threshold": head.threshold,
        "identity": head.identity,
        "fingerprint": model.fingerprint.to_json(),
        "weights": _relative_name(folder, model.weights),
        "codes": _relative_name(folder, model.codes),
        "images": model.images,
        "split": model.split,
        "training": model.training,
        "versions": model.versions,
    }
    write_json(folder, MODEL, with_format(description))


def load_model(where: PathOrUrl) -> Model:
    """Return the model that a folder contains.

    Raises:
        InputError: It is no model folder, or its two files do not belong together.
        RunError: It cannot be read.
    """
    folder = open_folder(where)
    try:
        described = in_current_format(read_json(folder, MODEL), folder.url_of(MODEL), formats_0_1.upgrade_model)
        check_shape(described, MODEL_SHAPE)
        with folder.open(ARRAYS) as file:
            arrays = load(file.read())
        head = head_from_arrays(
            arrays,
            tuple(described["classes"]),
            *(described[name] for name in ("normalization", "temperature", "threshold")),
        )
        identity = described["identity"]
        rest = {name: described[name] for name in ("weights", "codes", "images", "split", "training", "versions")}
        rest |= {name: folder.url_of(rest[name]) for name in ("weights", "codes") if rest[name] in (NETWORK, OWN_CODES)}
        fingerprint = Fingerprint.from_json(described["fingerprint"])
    except FileNotFoundError:
        raise InputError(f"{folder.url} is not a model folder: make one with `flowers-batch train`.") from None
    except OSError as error:
        raise reading_error(folder.url_of(ARRAYS), error) from error
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise InputError(f"The model in {folder.url} cannot be read ({error}): train it again.") from None
    if head.identity != identity:
        raise InputError(f"{ARRAYS} in {folder.url} does not belong to the {MODEL} beside it: train the model again.")
    return Model(head, fingerprint, **rest)


def write_metrics(folder: Folder, metrics: dict[str, Any]) -> None:
    """Publish `metrics.json`, each list of numbers in one line: with many classes they are most of the file."""
    text = json.dumps(with_format(metrics), indent=2, ensure_ascii=False)
    text = _LIST_OF_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    with folder.publish(METRICS) as scratch:
        Path(scratch).write_text(text + "\n", encoding="utf-8")


def read_metrics(folder: Folder) -> dict[str, Any]:
    """Return the content of `metrics.json`.

    Raises:
        FileNotFoundError: There is none.
        InputError: It is damaged, or a newer version of flowers_batch wrote it.
    """
    try:
        content = read_json(folder, METRICS, _MAX_METRICS_BYTES)
        metrics = in_current_format(content, folder.url_of(METRICS), formats_0_1.upgrade_metrics)
        metrics |= {split: with_sparse_confusion(metrics[split]) for split in SPLITS if split in metrics}
        check_shape(metrics, METRICS_SHAPE)
        check_metrics(metrics)
        return {"left_out_classes": asdict(LeftOutClasses()), "accuracy_of": "test"} | metrics
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder.url_of(METRICS)} is damaged ({error}): train the model again.") from None


def read_split(folder: Folder, columns: Sequence[str]) -> pa.Table:
    """Return columns of `split.parquet`: the labelled photos of a model, and the split that each is in.

    Raises:
        InputError: There is none, or it is damaged.
        RunError: It cannot be read.
    """
    return _read_columns(folder, SPLIT, columns)


def read_training_labels(folder: Folder) -> pa.Table:
    """Return `path`, `label` and `split` of all photos that had a label; `split` is null if their class was left out.

    Raises:
        InputError: They are not in the folder, or are damaged.
        RunError: They cannot be read.
    """
    split = read_split(folder, ["path", "label", "split"])
    if not folder.exists(LABELS):
        return split
    labels = _read_columns(folder, LABELS, ["path", "label"])
    return labels.join(split.select(["path", "split"]), "path", join_type="left outer")


def read_labelled_digests(folder: Folder) -> pa.Array:
    """Return SHA-256 of all photos that had a label when the model was trained: fixed-size binary [N].

    Raises:
        InputError: They are not in the folder, or are damaged.
        RunError: They cannot be read.
    """
    if not folder.exists(LABELS):  # version 0.1, which refused to train if it had to leave a class out
        return read_split(folder, ["sha256"])["sha256"].combine_chunks()
    return _read_columns(folder, LABELS, ["sha256"])["sha256"].combine_chunks()


def _read_columns(folder: Folder, name: str, columns: Sequence[str]) -> pa.Table:
    """Return columns of one of the folder's tables, after checking their types and that no value is null."""
    try:
        with folder.open(name) as file:
            parquet = open_parquet(file, page_checksum_verification=True)
            names = formats_0_1.split_columns(columns, parquet.schema_arrow.names)
            there = [(field.name, field.type) for field in parquet.schema_arrow]
            missing = [name for name in columns if name in _DEFAULTS and name not in parquet.schema_arrow.names]
            names = [name for name in names if name not in missing]
            columns = [name for name in columns if name not in missing]
            for column, own in zip(columns, names, strict=True):
                if there.count((own, _COLUMNS[column])) != 1:
                    raise pa.ArrowInvalid(f"it has no column `{own}` of type {_COLUMNS[column]}")
            table = parquet.read(names).select(names).rename_columns(columns)
            for name in missing:
                table = table.append_column(name, pa.repeat(pa.scalar(_DEFAULTS[name], _COLUMNS[name]), len(table)))
        table.validate(full=True)
        if any(column.null_count for column in table.columns):
            raise pa.ArrowInvalid("it has nulls")
    except (OSError, pa.ArrowException) as error:
        raise_io_error(folder.url_of(name), error)
        raise InputError(f"{folder.url_of(name)} is damaged ({reason_of(error)}): train the model again.") from None
    return table


def training_labels(folder: Folder, model: Model) -> tuple[str, ...]:
    """Return the labels that a model was trained on, as `TrainConfig.labels` names them.

    Args:
        folder: The model folder.
        model: The model in it.

    Returns:
        The folder's own copy, which no later change of a labels file reaches; of a model without one, which version
        0.1 trained, what the training was given.

    Raises:
        InputError: It was given a file in a place that may not be followed.
    """
    if folder.exists(LABELS):
        return (folder.url_of(LABELS),)
    return tuple(
        follow(folder, MODEL, "labels", name) if name.startswith("/") or scheme_of(name) else name
        for name in model.training.get("labels", ())
    )


def _relative_name(folder: Folder, name: str) -> str:
    """Return the name of something in the model folder without the folder's path; any other name as it is."""
    return next((own for own in (NETWORK, OWN_CODES) if name == folder.url_of(own)), name)
