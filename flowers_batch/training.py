"""Trains a classifier on codes: labels, split, heads, calibration, and honest figures."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowers_batch.config import InputError, TrainConfig
from flowers_batch.dataset import CODES, OK, Run, library_versions, open_run
from flowers_batch.evaluation import (
    at_threshold,
    auroc,
    calibration_curve,
    calibration_error,
    evaluate,
    find_threshold,
    fit_temperature,
    log_loss,
    outcomes,
)
from flowers_batch.fitting import KINDS, Fitted, fit, logits_of
from flowers_batch.grouping import SIDES, TEST, TRAIN, VALIDATION, group, split, values_of
from flowers_batch.heads import METRICS, MODEL, NETWORK, SPLIT, Head, Model, save_model
from flowers_batch.labels import Labelled, lasting, read_labelled
from flowers_batch.samples import Sample, sample_in
from flowers_batch.storage import Folder, Where, open_folder

_LOG = logging.getLogger(__name__)
_CURVE = (0.1, 0.25, 0.5)  # shares of the labels, besides all of them


@dataclass(frozen=True)
class Divided:
    """The labelled photos of a codes folder, grouped and divided.

    Attributes:
        labelled: All of them.
        classes: Names.
        sample: Their codes, targets and groups.
        values: [groups]: what decides on the side of each.
        sides: int [N]: an index into SIDES.
    """

    labelled: Labelled
    classes: tuple[str, ...]
    sample: Sample
    values: NDArray[np.float64]
    sides: NDArray[np.int_]

    def side(self, side: int) -> Sample:
        """The photos of a side."""
        return self.sample[self.sides == side]


def train(codes: Where, model: Where, config: TrainConfig | None = None) -> dict[str, Any]:
    """Trains a classifier on the labelled photos of a codes folder, and says how good it is.

    Args:
        codes: The codes folder.
        model: The model folder: it gets `head.safetensors`, `model.json`, `metrics.json` and `split.parquet`
            (each labelled photo with its group, its side of the split, and what the classifier says of it).
        config: How; the defaults are the command's.

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: The codes or the labels are not as they must be.
    """
    config = config or TrainConfig()
    begun = time.monotonic()
    run = open_run(codes, CODES)
    folder = open_folder(model)
    photos = divide(run, config)
    fitted, tried = _fit_best(photos, config)
    judged = judge(run, photos, fitted.head, config)
    metrics = judged.metrics
    metrics |= {"head": fitted.kind, "heads": tried}
    if run.job.weights.rpartition("/")[2] != NETWORK:  # which has seen all the labels of its training side
        metrics["learning_curve"] = _learning_curve(photos, fitted, config.seed, metrics["test"]["accuracy"])
        if len(photos.values) < len(photos.sides):
            metrics["split"]["accuracy_without_groups"] = _without_groups(photos, fitted, config.seed)
    metrics["seconds"] = round(time.monotonic() - begun, 3)
    with folder.locked():
        publish(folder, run, photos, judged, {"kind": fitted.kind} | described(config))
    return metrics


def divide(run: Run, config: TrainConfig) -> Divided:
    """Finds the labelled photos of a codes folder, and divides them so that no copy of a photo is on another side.

    Raises:
        InputError: The labels are not as they must be.
    """
    labelled = read_labelled(run, config.labels)
    _LOG.info("finding copies among %d labelled photos", len(labelled.paths))
    counts = Counter(labelled.labels.tolist())
    if len(counts) < 2:
        raise InputError(f"All labelled photos are {next(iter(counts))}: label photos of at least two classes.")
    names, targets = np.unique(labelled.labels, return_inverse=True)
    classes = tuple(names.tolist())
    groups = group(labelled.digests, labelled.hashes)
    values = values_of(labelled.digests, groups)
    sides = split(values, groups, targets, list(classes))
    sample = sample_in(run, labelled.rows, targets, groups, config.memory)
    return Divided(labelled, classes, sample, values, sides)


def with_codes_of(run: Run, photos: Divided, memory: int | None) -> Divided:
    """The same labelled photos on the same sides, with the codes of another folder; those that it has none of are left
    out."""
    place = {path: number for number, path in enumerate(photos.labelled.paths)}
    rows, numbers, before = list[int](), list[int](), 0
    for batch in run.batches(["path", "status"]):
        for row, (path, status) in enumerate(zip(*(column.to_pylist() for column in batch), strict=True)):
            if status == OK and path in place:
                rows.append(before + row)
                numbers.append(place[path])
        before += len(batch)
    kept = np.array(numbers, np.int64)
    old = photos.labelled
    labelled = replace(
        old,
        paths=[old.paths[number] for number in numbers],
        labels=old.labels[kept],
        digests=old.digests[kept],
        hashes=old.hashes[kept],
        rows=np.array(rows, np.int64),
        without_code=old.without_code + len(old.paths) - len(kept),
    )
    sample = sample_in(run, labelled.rows, photos.sample.targets[kept], photos.sample.groups[kept], memory)
    return Divided(labelled, photos.classes, sample, photos.values, photos.sides[kept])


@dataclass(frozen=True)
class Judged:
    """A head that is ready for use, and how good it is.

    Attributes:
        head: With temperature and threshold.
        probabilities: float32 [N, classes], of all labelled photos.
        metrics: The content of `metrics.json`.
    """

    head: Head
    probabilities: NDArray[np.float32]
    metrics: dict[str, Any]


def judge(run: Run, photos: Divided, head: Head, config: TrainConfig) -> Judged:
    """Calibrates a head that was fitted, finds its threshold on the validation side, and judges it on all sides."""
    logits = logits_of(head, photos.sample)
    targets, on = photos.sample.targets, [photos.sides == side for side in range(len(SIDES))]
    temperature = fit_temperature(logits[on[VALIDATION]], targets[on[VALIDATION]])
    before = calibration_curve(targets[on[TEST]], replace(head, temperature=1.0).probabilities_of(logits[on[TEST]]))
    head = replace(head, temperature=temperature)
    probabilities = head.probabilities_of(logits)
    sides = [(targets[side], probabilities[side]) for side in on]
    threshold = find_threshold(*sides[VALIDATION], config.min_precision)
    head = replace(head, threshold=threshold)
    labelled = photos.labelled
    metrics: dict[str, Any] = {
        "classes": list(photos.classes),
        "photos": {name: int((photos.sides == side).sum()) for side, name in enumerate(SIDES)},
        "without_code": labelled.without_code,
        "unknown_paths": labelled.unknown_paths,
        "unknown_examples": labelled.unknown_examples,
        "empty_labels": labelled.empty_labels,
        "unlabelled": labelled.unlabelled,
        "conflicts": labelled.conflicts,
        "weights": run.job.weights,
        "fingerprint": run.job.fingerprint.digest,
    }
    for side, name in enumerate(SIDES):
        metrics[name] = evaluate(*sides[side], list(photos.classes))
    curve = calibration_curve(*sides[TEST])
    metrics["calibration"] = {
        "temperature": head.temperature,
        "ece_before": calibration_error(before),
        "ece_after": calibration_error(curve),
        "curve": curve,
    }
    sure, right = outcomes(*sides[TEST])
    metrics["unknown"] = {
        "min_precision": config.min_precision,
        "threshold": threshold,
        **at_threshold(*sides[VALIDATION], threshold),
        "test": at_threshold(*sides[TEST], threshold),
        "auroc": auroc(sure[right], sure[~right]),
    }
    metrics["learning_curve"] = [
        {"share": 1.0, "photos": metrics["photos"]["train"], "accuracy": metrics["test"]["accuracy"]}
    ]
    metrics["split"] = {
        "groups": len(photos.values),
        "grouped_photos": int((np.bincount(photos.sample.groups)[photos.sample.groups] > 1).sum()),
        "accuracy_without_groups": None,
    }
    return Judged(head, probabilities, metrics)


def publish(folder: Folder, run: Run, photos: Divided, judged: Judged, training: dict[str, Any]) -> None:
    """Writes a model folder, which the caller holds the lock of.

    Args:
        folder: The model folder.
        run: The codes folder that the head takes codes of.
        photos: The labelled ones.
        judged: The head.
        training: What was asked for: `Model.training`.
    """
    metrics = judged.metrics
    metrics["split"]["moved"] = _moved(folder, photos.labelled.paths, photos.sides)
    # A model that is half new must not be taken for whole: what makes it one goes first and comes last.
    folder.delete(MODEL)
    _write_split(folder, photos, judged.probabilities)
    folder.write_json(METRICS, metrics)
    save_model(
        folder,
        Model(
            head=judged.head,
            fingerprint=run.job.fingerprint,
            weights=run.job.weights,
            codes=run.folder.url,
            images=run.job.images,
            split={"photos": metrics["photos"], "groups": metrics["split"]["groups"]},
            training=training,
            versions=library_versions(),
        ),
    )


def described(config: TrainConfig) -> dict[str, Any]:
    """What was asked of a training, by names that are right from any folder."""
    return asdict(config) | {"labels": [lasting(name) for name in config.labels]}


def _fit_best(photos: Divided, config: TrainConfig) -> tuple[Fitted, dict[str, Any]]:
    """The head that was asked for or, of all kinds, the one of the least log loss on validation.

    Also what each kind came to.
    """
    train, validation = photos.side(TRAIN), photos.side(VALIDATION)
    tried: dict[str, Any] = {}
    best: Fitted | None = None
    for kind in KINDS if config.head == "auto" else (config.head,):
        fitted = fit(kind, train, validation, photos.classes, config.seed)
        logits = logits_of(fitted.head, validation)
        temperature = fit_temperature(logits, validation.targets)
        loss = log_loss(logits, validation.targets, temperature)
        tried[kind] = {
            "validation_accuracy": float((logits.argmax(1) == validation.targets).mean()),
            "validation_log_loss": loss,
            "strength": fitted.strength,
            "epochs": fitted.epochs,
        }
        if best is None or loss < tried[best.kind]["validation_log_loss"]:
            best = fitted
    assert best
    return best, tried


def _learning_curve(photos: Divided, fitted: Fitted, seed: int, accuracy: float) -> list[dict[str, Any]]:
    """Test accuracy of heads that were fitted to shares of the labels, whole groups, and as much of each class."""
    train, validation, test = (photos.side(side) for side in range(3))
    points = []
    for share in _CURVE:
        chosen = np.zeros(len(train), bool)
        for target in range(len(photos.classes)):
            own = np.unique(train.groups[train.targets == target])
            # By value, so that a larger share holds the smaller ones.
            taken = own[np.argsort(photos.values[own])][: max(1, round(share * len(own)))]
            chosen |= (train.targets == target) & np.isin(train.groups, taken)
        part = train[chosen]
        _LOG.info("learning curve: %.0f%% of the labels", 100 * share)
        head = fit(fitted.kind, part, validation, photos.classes, seed, fitted.strength).head
        right = logits_of(head, test).argmax(1) == test.targets
        points.append({"share": share, "photos": len(part), "accuracy": float(right.mean())})
    return [*points, {"share": 1.0, "photos": len(train), "accuracy": accuracy}]


def _without_groups(photos: Divided, fitted: Fitted, seed: int) -> float:
    """The accuracy that would have been found, had copies been allowed on both sides."""
    sample = photos.sample
    alone = np.arange(len(sample))
    sides = split(np.random.default_rng(seed).random(len(sample)), alone, sample.targets, list(photos.classes))
    train, validation, test = (sample[sides == side] for side in range(3))
    head = fit(fitted.kind, train, validation, photos.classes, seed, fitted.strength).head
    return float((logits_of(head, test).argmax(1) == test.targets).mean())


def _moved(model: Folder, paths: list[str], sides: NDArray[np.int_]) -> int:
    """Photos that were on another side when this model was last trained, since their groups have become one."""
    try:
        with model.open(SPLIT) as file:
            table = pq.read_table(file, columns=["path", "side"])
    except (OSError, pa.ArrowException):  # there is none, or none that can be read: it is about to be written anew
        return 0
    before = dict(zip(*(table[name].to_pylist() for name in ("path", "side")), strict=True))
    return sum(before.get(path, SIDES[side]) != SIDES[side] for path, side in zip(paths, sides, strict=True))


def _write_split(folder: Folder, photos: Divided, probabilities: NDArray[np.float32]) -> None:
    labelled = photos.labelled
    table = pa.table(
        {
            "path": labelled.paths,
            "label": labelled.labels.tolist(),
            "sha256": pa.array(labelled.sha256, pa.binary(32)),
            "group": photos.sample.groups,
            "side": [SIDES[side] for side in photos.sides],
            "prediction": np.array(photos.classes)[probabilities.argmax(1)].tolist(),
            "probability": probabilities.max(1),
        }
    )
    with folder.publish(SPLIT) as scratch:
        pq.write_table(table, scratch, compression="zstd")
