"""Trains a classifier on codes: labels, split, fit, evaluation. The only room with scikit-learn."""

from __future__ import annotations

import csv
import io
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs

from flowers_batch.config import InputError, TrainConfig
from flowers_batch.dataset import CODES, Run, codes_of, library_versions, open_run
from flowers_batch.heads import METRICS, MODEL, SPLIT, Head, Model, save_model
from flowers_batch.storage import Where, open_folder, split_file

SIDES = ("train", "validation", "test")
_HELD_OUT = 0.1  # of a class's photos, for validation and again for testing; at least one each
_LEAST_PHOTOS = 3  # of a class: one for each side
# Thousands of standardised dimensions and few photos want a strong L2: benchmarks/heads.py compares strengths.
_LOGISTIC_C = 1e-2
_LOGISTIC_ITERATIONS = 500
# The notebook's head and how it was trained.
_HIDDEN_UNITS = 256
_MLP_EPOCHS = 20
_Z95 = 1.96


@dataclass(frozen=True)
class Labelled:
    """The labelled photos of a codes folder that have a code.

    Attributes:
        paths: Their keys.
        labels: Their classes' names, as an array of str.
        codes: float16 or float32 [N, width].
        without_code: Labelled photos that failed.
        unknown_paths: Labels for paths that the codes folder does not have.
        unlabelled: Photos with a code and no label.
    """

    paths: list[str]
    labels: NDArray[np.str_]
    codes: NDArray[np.floating]
    without_code: int
    unknown_paths: int
    unlabelled: int


def train(codes: Where, model: Where, config: TrainConfig | None = None) -> dict[str, Any]:
    """Trains a classifier on the labelled photos of a codes folder, and says how good it is.

    Args:
        codes: The codes folder.
        model: The model folder: it gets `head.safetensors`, `model.json`, `metrics.json` and `split.parquet`
            (each labelled photo with its side of the split and what the classifier says of it).
        config: How; the defaults are the command's.

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: The codes or the labels are not as they must be.
    """
    config = config or TrainConfig()
    run = open_run(codes, CODES)
    labelled = read_labelled(run, config.labels)
    _check_classes(labelled, run, config)
    classes, targets = np.unique(labelled.labels, return_inverse=True)
    sides = split(targets, config.seed)
    head = _fit(labelled.codes[sides == 0], targets[sides == 0], tuple(classes.tolist()), config)
    probabilities = head.probabilities(labelled.codes)
    counts = {name: int((sides == side).sum()) for side, name in enumerate(SIDES)}
    metrics: dict[str, Any] = {
        "classes": classes.tolist(),
        "head": config.head,
        "photos": counts,
        "without_code": labelled.without_code,
        "unknown_paths": labelled.unknown_paths,
        "unlabelled": labelled.unlabelled,
        "weights": run.job.weights,
        "fingerprint": run.job.fingerprint.digest,
    }
    for side, name in enumerate(SIDES):
        metrics[name] = evaluate(targets[sides == side], probabilities[sides == side], classes.tolist())
    folder = open_folder(model)
    with folder.locked():
        # A model that is half new must not be taken for whole: what makes it one goes first and comes last.
        folder.delete(MODEL)
        _write_split(folder, labelled, sides, classes, probabilities)
        folder.write_json(METRICS, metrics)
        save_model(
            folder,
            Model(
                head=head,
                fingerprint=run.job.fingerprint,
                weights=run.job.weights,
                codes=run.folder.url,
                images=run.job.images,
                split={"seed": config.seed, "photos": counts, "head": config.head, "labels": config.labels},
                versions=library_versions(),
            ),
        )
    return metrics


def read_labelled(run: Run, labels: str) -> Labelled:
    """Streams a codes folder and keeps what is labelled.

    Args:
        run: The codes folder.
        labels: `folder`, or a CSV or Parquet file with the columns `path` and `label`.

    Raises:
        InputError: There are no labels, or the file has none of the columns.
    """
    given = None if labels == "folder" else read_labels(labels)
    paths: list[str] = []
    names: list[str] = []
    codes: list[NDArray[np.floating]] = []
    without_code = unlabelled = found = 0
    for batch in run.batches(["path", "folder", "status", "code"]):
        values, ok = codes_of(batch)
        batch_paths = batch["path"].to_pylist()
        batch_labels = [given.get(path) for path in batch_paths] if given is not None else batch["folder"].to_pylist()
        has_label = np.array([label is not None for label in batch_labels], bool)
        found += int(has_label.sum())
        without_code += int((has_label & ~ok).sum())
        unlabelled += int((~has_label & ok).sum())
        keep = has_label & ok
        codes.append(values[has_label[ok]])
        paths += [path for path, kept in zip(batch_paths, keep, strict=True) if kept]
        names += [label for label, kept in zip(batch_labels, keep, strict=True) if label and kept]
    if not paths:
        raise InputError(
            f"None of the photos in {run.folder.url} has a label: "
            + (
                "put each into a folder named for its class, or give --labels a CSV file with path,label."
                if given is None
                else f"the paths in {labels} must be written as in the column `path` of the codes, such as "
                f"{next(iter(batch_paths), 'roses/1.jpg')}."
            )
        )
    unknown = len(given) - found if given is not None else 0
    return Labelled(paths, np.array(names), np.concatenate(codes), without_code, unknown, unlabelled)


def read_labels(file: str) -> dict[str, str]:
    """Reads `path,label` from a CSV (UTF-8, with a header) or Parquet file; rows without a label are left out.

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
                rows = list(csv.DictReader(io.StringIO(stream.read().decode("utf-8-sig"), newline="")))
        return {str(row["path"]): label for row in rows if (label := _label(row["label"]))}
    except (pa.ArrowInvalid, KeyError, csv.Error, UnicodeDecodeError):
        raise InputError(
            f"{file} is not a labels file: it must be CSV (UTF-8) or Parquet with the columns path and label."
        ) from None


def _label(value: Any) -> str:
    """A label as text; empty where there is none. Numbers are labels too, 0 among them."""
    return "" if value is None or value != value else str(value).strip()


def split(targets: NDArray[np.int_], seed: int) -> NDArray[np.int_]:
    """Divides photos, class by class, into sides: 80% to train (0), 10% to validate (1), 10% to test (2).

    Args:
        targets: int [N]: each photo's class. Each class has at least three photos.
        seed: Equal seeds give equal sides.

    Returns:
        int [N]: an index into SIDES.
    """
    random = np.random.default_rng(seed)
    sides = np.zeros(len(targets), int)
    for target in np.unique(targets):
        members = random.permutation(np.flatnonzero(targets == target))
        held_out = max(1, round(_HELD_OUT * len(members)))
        sides[members[:held_out]] = 2
        sides[members[held_out : 2 * held_out]] = 1
    return sides


def evaluate(targets: NDArray[np.int_], probabilities: NDArray[np.float32], classes: list[str]) -> dict[str, Any]:
    """How well probabilities [N, classes] fit the true classes int [N]: what `metrics.json` says of a side."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    predicted = probabilities.argmax(1)
    numbers = np.arange(len(classes))
    right = int((predicted == targets).sum())
    columns = precision_recall_fscore_support(targets, predicted, labels=numbers, zero_division=0.0)
    return {
        "photos": len(targets),
        "accuracy": right / len(targets),
        "interval95": wilson_interval(right, len(targets)),
        "macro_f1": float(columns[2].mean()),
        "confusion_matrix": confusion_matrix(targets, predicted, labels=numbers).tolist(),
        "per_class": {
            name: {
                "precision": float(columns[0][number]),
                "recall": float(columns[1][number]),
                "f1": float(columns[2][number]),
                "photos": int(columns[3][number]),
            }
            for number, name in enumerate(classes)
        },
    }


def wilson_interval(right: int, total: int) -> list[float]:
    """The 95% interval of a proportion (Wilson, 1927, "Probable inference"), which holds for small counts too."""
    share = right / total
    centre = share + _Z95**2 / (2 * total)
    spread = _Z95 * np.sqrt(share * (1 - share) / total + _Z95**2 / (4 * total**2))
    width = 1 + _Z95**2 / total
    return [max(0.0, float((centre - spread) / width)), min(1.0, float((centre + spread) / width))]


def _check_classes(labelled: Labelled, run: Run, config: TrainConfig) -> None:
    counts = Counter(labelled.labels.tolist())
    if len(counts) < 2:
        raise InputError(f"All labelled photos are {next(iter(counts))}: label photos of at least two classes.")
    rare = [f"{name} ({count})" for name, count in sorted(counts.items()) if count < _LEAST_PHOTOS]
    if rare:
        raise InputError(
            f"Each class needs at least {_LEAST_PHOTOS} photos, to train, to validate and to test with. "
            f"Too few are in: {', '.join(rare)}; add photos, or leave these classes out."
        )


def _fit(codes: NDArray[np.floating], targets: NDArray[np.int_], classes: tuple[str, ...], config: TrainConfig) -> Head:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    standardised = scaler.fit_transform(codes.astype(np.float32))
    with warnings.catch_warnings():
        # The notebook's head is trained for a number of epochs, not until it converges.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if config.head == "mlp":
            fitted = MLPClassifier((_HIDDEN_UNITS,), max_iter=_MLP_EPOCHS, random_state=config.seed)
            fitted.fit(standardised, targets)
            layers = list(zip(fitted.coefs_, fitted.intercepts_, strict=True))
        else:
            fitted = LogisticRegression(C=_LOGISTIC_C, max_iter=_LOGISTIC_ITERATIONS)
            fitted.fit(standardised, targets)
            layers = [(fitted.coef_.T, fitted.intercept_)]
    if len(classes) == 2:
        layers[-1] = _two_classes(*layers[-1])
    return Head(
        classes=classes,
        mean=scaler.mean_.astype(np.float32),
        scale=scaler.scale_.astype(np.float32),
        layers=tuple((kernel.astype(np.float32), bias.astype(np.float32)) for kernel, bias in layers),
    )


def _two_classes(
    kernel: NDArray[np.floating], bias: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """A sigmoid of one logit, as scikit-learn fits two classes, is a softmax of it and 0."""
    return np.concatenate([np.zeros_like(kernel), kernel], axis=1), np.concatenate([np.zeros_like(bias), bias])


def _write_split(
    folder: Any,
    labelled: Labelled,
    sides: NDArray[np.int_],
    classes: NDArray[np.str_],
    probabilities: NDArray[np.float32],
) -> None:
    table = pa.table(
        {
            "path": labelled.paths,
            "label": labelled.labels.tolist(),
            "side": [SIDES[side] for side in sides],
            "prediction": classes[probabilities.argmax(1)].tolist(),
            "probability": probabilities.max(1),
        }
    )
    with folder.publish(SPLIT) as scratch:
        pq.write_table(table, scratch, compression="zstd")
