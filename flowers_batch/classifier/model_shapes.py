"""The fields of a model folder's JSON files that are read, and their types: see `json_values.check_shape`."""

from __future__ import annotations

from typing import Any

from flowers_batch.classifier.normalization import NORMALIZATIONS

MODEL_SHAPE = {
    "classes": [str],
    "normalization": NORMALIZATIONS,
    "temperature": float,
    "threshold": (float, None),
    "identity": str,
    "fingerprint": dict,
    "weights": str,
    "codes": str,
    "images": str,
    "split": dict,
    "training": {"labels?": [str], "classes?": [str], "initial_weights?": str},
    "versions": {str: str},
}
_ACCURACY = {"accuracy": float, "interval95": [float], "photos": int}
_SCORES = _ACCURACY | {
    "macro_f1": float,
    "confusion": [[int]],
    "per_class": {str: {"precision": float, "recall": float, "f1": float, "photos": int}},
}
_THRESHOLD = {"precision": (float, None), "coverage": float}
_PROMISE = {  # version 0.1 promised nothing
    "bound?": (float, None),
    "photos?": int,
    "of_photos?": int,
    "random_only?": bool,
    "labels_needed?": {str: (int, None)},
    "per_class?": {str: {"precision": float, "photos": int}},
}
_CALIBRATION = {
    "temperature?": float,
    "ece_before": float,
    "ece_after": float,
    "curve": [{"photos": int, "probability": float, "accuracy": float}],
}
_EPOCH = {
    "epoch": int,
    "validation_loss": float,
    "validation_accuracy": float,
    "loss": float,
    "accuracy": float,
    "lr_multiplier": float,
    "seconds": float,
    "stages": {str: float},
}
STATE_SHAPE = {"epochs": [_EPOCH], "best": int}
_TUNING = {
    "initial_weights": str,
    "epochs": [_EPOCH],
    "best_epoch": int,
    "stage_shares": {"network": float, "wait": float, "save": float},
    "minutes": float,
    "frozen": {"model": str, "minutes": float},
    "comparison": {
        "photos": int,
        "after": _ACCURACY,
        "before": _ACCURACY,
        "better": int,
        "worse": int,
        "gain": float,
        "interval95": [float],
        "p_value": float,
    },
    "unfreeze": str,
    "verdict": str,
}
METRICS_SHAPE: dict[str, Any] = {
    "classes": [str],
    "photos": {"train": int, "validation": int, "test": int},
    "without_code": int,
    "unknown_paths": int,
    "unknown_examples": [str],
    "unknown_nearest?": [(str, None)],
    "empty_labels": int,
    "unlabelled": int,
    "similar_classes?": [[str]],
    "unreadable_labels?": int,
    "disagreements?": [{"path": str, "labels": {str: str}}],
    "several_classes?": [{"path": str, "classes": [str]}],
    "unread_keywords?": int,
    "unread_examples?": [{"path": str, "message": str}],
    "chosen?": {str: int},
    "random_needed?": int,
    "left_out_classes?": {
        "min_photos_per_class": int,
        "photos": int,
        "rare": {str: int},
        "copies": {str: int},
        "untested?": {str: int},
    },
    "conflicts": [{str: str}],
    "weights": str,
    "train": _SCORES,
    "validation?": _SCORES,
    "test?": _SCORES,
    "cross_validation?": _SCORES,
    "accuracy_of?": ("test", "cross_validation", None),
    "calibration": (None, _CALIBRATION),
    "unknown": _THRESHOLD
    | _PROMISE
    | {"min_precision": float, "threshold": float, "test": _THRESHOLD, "auroc": (float, None)},
    "learning_curve": [{"share": float, "photos": int, "accuracy": float}],
    "learning_gain?": {"gain": float, "p_value": float},
    "split": {"groups": int, "grouped_photos": int, "accuracy_without_groups": (float, None), "moved": int},
    "head": str,
    "tuning?": _TUNING,
    "seconds": float,
}


def check_metrics(metrics: dict[str, Any]) -> None:
    """Check what the shape does not say: how long lists are, and that they speak of the same classes.

    Raises:
        TypeError: Something contradicts something else.
    """
    count = len(metrics["classes"])
    accuracy_of = metrics.get("accuracy_of", "test")
    if not count or (accuracy_of and not (metrics["calibration"] and metrics["calibration"]["curve"])):
        raise TypeError("a list is empty")
    if accuracy_of and not metrics["learning_curve"]:
        raise TypeError("a list is empty")
    if len(set(metrics["classes"])) < count:
        raise TypeError("`classes` has a name twice")
    for name in ("train", "validation", "test", "cross_validation"):
        if name in metrics:
            _check_scores(metrics[name], metrics["classes"])
    if accuracy_of and accuracy_of not in metrics:
        raise TypeError(f"`{accuracy_of}` is missing")
    if tuning := metrics.get("tuning"):
        check_epochs(tuning["epochs"], tuning["best_epoch"])
        for scores in (tuning["comparison"], tuning["comparison"]["before"], tuning["comparison"]["after"]):
            _check_interval(scores)


def check_epochs(epochs: list[dict[str, Any]], best: int) -> None:
    """Check that epochs are counted from 0, and that the best is one of them.

    Raises:
        TypeError: They are not, or it is not.
    """
    if [epoch["epoch"] for epoch in epochs] != list(range(len(epochs))) or best >= len(epochs):
        raise TypeError("the epochs are not counted from 0 to the last")


def _check_scores(scores: dict[str, Any], classes: list[str]) -> None:
    _check_interval(scores)
    if any(len(cell) != 3 or max(cell[:2]) >= len(classes) for cell in scores["confusion"]):
        raise TypeError("`confusion` has a cell of no class")
    if list(scores["per_class"]) != classes:
        raise TypeError("`per_class` has other classes than `classes`")


def _check_interval(scores: dict[str, Any]) -> None:
    if len(scores["interval95"]) != 2:
        raise TypeError("`interval95` is not a pair")
