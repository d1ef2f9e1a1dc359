"""Whether fine-tuning paid: the fine-tuned classifier against the one on frozen codes, on the same held-out photos."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowers_batch.classifier.evaluation import compare
from flowers_batch.classifier.labelled_split import LabelledSplit
from flowers_batch.classifier.metrics_sentences import ALPHA
from flowers_batch.classifier.model_folder import read_metrics, read_split
from flowers_batch.classifier.split import SPLITS, TEST
from flowers_batch.dataset.run_folder import Run
from flowers_batch.finetuning.job import FinetuningResult
from flowers_batch.storage.opening import open_folder


def describe_tuning(
    frozen_model: str,
    frozen: Run,
    run: Run,
    labelled: LabelledSplit,
    correct: NDArray[np.bool_],
    result: FinetuningResult,
) -> dict[str, Any]:
    """Return what `metrics.json` says in `tuning`, besides the verdict.

    Args:
        frozen_model: The folder of the classifier on frozen codes.
        frozen: The frozen codes.
        run: The codes of the fine-tuned network; `frozen`, if no epoch was better.
        labelled: The labelled photos with those codes.
        correct: bool [N]: which of them the fine-tuned classifier labels correctly.
        result: Of the training.
    """
    folder = open_folder(frozen_model)
    stages: Counter[str] = Counter()
    for epoch in result.state.epochs:
        stages.update(epoch.stages)
    seconds = sum(epoch.seconds for epoch in result.state.epochs)
    frozen_seconds = _encoding_seconds(frozen) + read_metrics(folder)["seconds"]
    encoding_seconds = 0.0 if run is frozen else _encoding_seconds(run)
    return {
        "initial_weights": frozen.job.weights,
        "epochs": [asdict(epoch) for epoch in result.state.epochs],
        "best_epoch": result.state.best,
        "gpus": result.gpus,
        "stages": {name: round(spent, 3) for name, spent in stages.items()},
        "stage_shares": {name: spent / seconds for name, spent in stages.items()},
        "minutes": (frozen_seconds + seconds + encoding_seconds) / 60,
        "frozen": {"model": folder.url, "minutes": frozen_seconds / 60},
        "comparison": _compare_with(frozen_model, labelled, correct),
    }


def _compare_with(frozen_model: str, labelled: LabelledSplit, correct: NDArray[np.bool_]) -> dict[str, Any]:
    """Compare with the classifier on frozen codes, on its test photos."""
    rows = read_split(open_folder(frozen_model), ["path", "label", "prediction", "split"]).to_pylist()
    was_correct = {row["path"]: row["prediction"] == row["label"] for row in rows if row["split"] == SPLITS[TEST]}
    # One photo of each group counts: near-duplicates are right or wrong together.
    _, firsts = np.unique(labelled.codes.groups, return_index=True)
    paths = {number: labelled.photos.paths[number] for number in firsts}
    both = [number for number, path in paths.items() if path in was_correct]
    return compare(correct[both], np.array([was_correct[paths[number]] for number in both]))


def _encoding_seconds(run: Run) -> float:
    """Return the seconds to encode all images of a folder at its run's rate; its seconds, if nothing was encoded."""
    rate = run.summary["images_per_second"]
    return run.summary["images"] / rate if rate else run.summary["seconds"]


def verdict(tuning: dict[str, Any]) -> str:
    """Return one or two sentences on whether fine-tuning paid.

    Args:
        tuning: Of `describe_tuning`.
    """
    comparison = tuning["comparison"]
    low, high = comparison["interval95"]
    gain = (
        f"{comparison['gain']:+.1%} of {comparison['photos']} held-out photos, 95% interval {low:+.1%} to {high:+.1%}, "
        f"p = {comparison['p_value']:.2g}"
    )
    costs = f"{tuning['minutes']:.1f} minutes instead of {tuning['frozen']['minutes']:.1f}"
    is_significant = comparison["p_value"] < ALPHA
    if comparison["gain"] > 0 and is_significant:
        return f"Fine-tuning paid: more labels are right than with frozen codes ({gain}), for {costs}."
    why = "fewer labels are right than with frozen codes" if is_significant else "the difference may be chance"
    if not tuning["best_epoch"]:
        why = "no epoch was better on the validation photos than the classifier on frozen codes"
    return f"Fine-tuning did not pay: {why} ({gain}), for {costs}. Use {tuning['frozen']['model']}."
