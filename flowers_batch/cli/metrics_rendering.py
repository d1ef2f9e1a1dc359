"""The result of a training as text."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from flowers_batch.classifier.confusion import dense_matrix, most_common_confusions
from flowers_batch.classifier.left_out_classes import sentences_on_left_out_classes
from flowers_batch.classifier.metrics_sentences import (
    HELD_OUT_NAMES,
    chosen_sentences,
    disagreement_sentences,
    keyword_sentences,
    learning_sentence,
    promise_sentences,
)
from flowers_batch.text import joined_visibly, visible

_CONFLICTS_SHOWN = 5  # metrics.json has all
_UNKNOWN_PATHS_SHOWN = 3
_MATRIX_CLASSES = 30  # a wider confusion matrix fits on no terminal
_WORST_SHOWN = 10  # of more classes, and of their confusions


def training_text(metrics: Mapping[str, Any], model: str) -> str:
    """Return the result of a training run as text.

    Args:
        metrics: The content of `metrics.json`.
        model: The model's folder.
    """
    return joined_visibly(_training_lines(metrics, model))


def _training_lines(metrics: Mapping[str, Any], model: str) -> Iterator[str]:
    trained = "fine-tuned the network" if "tuning" in metrics else f"trained {metrics['head']}"
    yield f"{trained} on {metrics['photos']['train']} photos of {len(metrics['classes'])} classes: {model}"
    yield from _accuracy_lines(metrics)
    yield from _split_lines(metrics)
    if metrics["calibration"]:
        yield from _calibration_lines(metrics["calibration"])
    yield from _promise_lines(metrics["unknown"])
    if "tuning" in metrics:
        yield from _tuning_lines(metrics["tuning"])
    if len(metrics["learning_curve"]) > 1:
        yield from _learning_lines(metrics)
    if metrics["accuracy_of"]:
        yield from _class_lines(metrics["classes"], metrics[metrics["accuracy_of"]], metrics["accuracy_of"])
    yield from _label_lines(metrics)


def _accuracy_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the accuracy of the model, and then that of the other photos that were held out."""
    if metrics["accuracy_of"] == "test":
        yield f"  {accuracy_text('test', metrics['test'])}"
        other = "cross_validation" if "cross_validation" in metrics else "validation"
        yield f"  {accuracy_text(HELD_OUT_NAMES[other], metrics[other])}"
    elif metrics["accuracy_of"]:
        yield f"  {accuracy_text(HELD_OUT_NAMES['cross_validation'], metrics['cross_validation'])}"
        test = metrics["test"]["photos"] if "test" in metrics else 0
        yield f"  (the {test} test photos, fewer than 10 per class, are too few to measure it)"
    for sentence in chosen_sentences(metrics):
        yield f"  {sentence}"


def _split_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    split = metrics["split"]
    if split["grouped_photos"]:
        yield f"  {split['grouped_photos']} photos are near-duplicates of others, and never straddle the split"
    if split["accuracy_without_groups"] is not None:
        accuracy = metrics.get("cross_validation", metrics["test"])["accuracy"]
        yield (
            "  (with copies on both sides, the accuracy would have seemed to be "
            f"{split['accuracy_without_groups']:.1%} instead of {accuracy:.1%})"
        )
    if split["moved"]:
        yield f"  {split['moved']} photos changed their split since the last training, with their near-duplicates"


def _calibration_lines(calibration: Mapping[str, Any]) -> Iterator[str]:
    scaled = calibration["temperature"] != 1
    before = f" ({calibration['ece_before']:.1%} before temperature scaling by {calibration['temperature']:.2f})"
    yield f"  expected calibration error {calibration['ece_after']:.1%}{before if scaled else ''}"


def _promise_lines(unknown: Mapping[str, Any]) -> Iterator[str]:
    """Yield which labels are unknown, and what is promised of the others."""
    for sentence in promise_sentences(unknown):
        yield f"  {sentence}"
    if classes := unknown.get("per_class"):
        worst = heapq.nsmallest(_WORST_SHOWN, classes, key=lambda name: classes[name]["precision"])
        yield "  by class (lowest precision first):" if len(classes) > 1 else "  by class:"
        width = max(map(len, map(visible, worst)))
        for name in worst:
            kept = classes[name]
            yield f"      {visible(name):<{width}} {kept['precision']:6.1%} of {kept['photos']} photos"


def _learning_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    kind = HELD_OUT_NAMES["cross_validation" if "cross_validation" in metrics else "test"]
    yield f"  would more labels help? {kind} accuracy by labels used:"
    for point in metrics["learning_curve"]:
        yield f"    {point['share']:4.0%} ({point['photos']} photos) {point['accuracy']:6.1%}"
    if sentence := learning_sentence(metrics):
        yield f"    {sentence}"


def _tuning_lines(tuning: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"  {tuning['unfreeze']} was trained, from {tuning['initial_weights']}; "
        f"the best epoch is {tuning['best_epoch']}:"
    )
    yield "    epoch  minutes   loss accuracy  on validation photos: loss accuracy"
    for epoch in tuning["epochs"]:
        trained = f"{epoch['loss']:6.3f} {epoch['accuracy']:8.1%}" if epoch["epoch"] else f"{'before':>15}"
        yield (
            f"    {epoch['epoch']:5d} {epoch['seconds'] / 60:8.1f} {trained} "
            f"{epoch['validation_loss']:27.3f} {epoch['validation_accuracy']:8.1%}"
        )
    shares, compared = tuning["stage_shares"], tuning["comparison"]
    yield (
        f"  share of time: network {shares['network']:.0%}, waiting for photos {shares['wait']:.0%}, "
        f"saving epochs {shares['save']:.0%}"
    )
    yield "  on the same held-out photos, near-duplicates counted once:"
    yield f"    {accuracy_text('with frozen codes,', compared['before'])}"
    yield f"    {accuracy_text('fine-tuned,', compared['after'])}"
    yield f"  {tuning['verdict']}"


def _class_lines(classes: Sequence[str], test: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Yield a line per class, or of many classes the worst: precision, recall, F1 and confusions on held-out photos."""
    photos = HELD_OUT_NAMES[kind]
    if len(classes) > _MATRIX_CLASSES:
        yield from _worst_class_lines(classes, test, photos)
        return
    yield f"  {photos} photos by class, and the confusion matrix (rows: actual class, columns: predicted class)"
    heading, *lines = _score_lines(classes, test["per_class"])
    yield heading
    for line, row in zip(lines, dense_matrix(test["confusion"], len(classes)), strict=True):
        yield f"{line}  {' '.join(f'{count:5d}' for count in row)}"


def _worst_class_lines(classes: Sequence[str], test: Mapping[str, Any], photos: str) -> Iterator[str]:
    per_class = test["per_class"]
    yield (
        f"  the {_WORST_SHOWN} of {len(classes)} classes with the lowest F1 on {photos} photos (metrics.json has all)"
    )
    worst = heapq.nsmallest(_WORST_SHOWN, classes, key=lambda name: (per_class[name]["f1"], -per_class[name]["photos"]))
    yield from _score_lines(worst, per_class)
    if confusions := most_common_confusions(test["confusion"], classes, _WORST_SHOWN):
        yield "  the most common confusions"
    for true, predicted, count in confusions:
        were = "was" if count == 1 else "were"
        yield f"    {count} of {per_class[true]['photos']} {true} {were} taken for {predicted}"


def _score_lines(classes: Sequence[str], per_class: Mapping[str, Any]) -> Iterator[str]:
    """Yield a heading, and each class's precision, recall and F1."""
    width = max(map(len, map(visible, [*classes, "class"])))
    yield f"    {'class':<{width}} photos precision recall     f1"
    for name in classes:
        scores = per_class[name]
        if not scores["photos"]:
            yield f"    {visible(name):<{width}} {0:6d}  not tested"
            continue
        yield (
            f"    {visible(name):<{width}} {scores['photos']:6d} {scores['precision']:9.1%} {scores['recall']:6.1%} "
            f"{scores['f1']:6.1%}"
        )


def _label_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of the labels."""
    for sentence in sentences_on_left_out_classes(metrics["left_out_classes"]):
        yield f"  {sentence}"
    if conflicts := metrics["conflicts"]:
        yield f"  {len(conflicts)} sets of identical photos have different labels, such as:"
        for labels in conflicts[:_CONFLICTS_SHOWN]:
            yield "    " + ", ".join(f"{path} ({label})" for path, label in labels.items())
    for sentence in (*disagreement_sentences(metrics), *keyword_sentences(metrics)):
        yield f"  {sentence}"
    if metrics["without_code"]:
        yield f"  {metrics['without_code']} labelled photos could not be read, and are left out"
    if metrics["unknown_paths"]:
        # Version 0.1 wrote no nearest paths.
        examples = zip_longest(metrics["unknown_examples"], metrics.get("unknown_nearest", ()))
        shown = [f"{path} (nearest: {nearest})" if nearest else path for path, nearest in examples]
        count = metrics["unknown_paths"]
        labels = "1 label is for a path" if count == 1 else f"{count} labels are for paths"
        yield f"  {labels} that the codes do not have, such as {', '.join(shown[:_UNKNOWN_PATHS_SHOWN])}"
    if metrics.get("unreadable_labels"):  # not in metrics of version 0.1
        yield f"  {metrics['unreadable_labels']} photos have a label in a column or a member that is no class's name"
    if metrics["empty_labels"]:
        yield f"  {metrics['empty_labels']} rows of the label files have no label"


def accuracy_text(name: str, scores: Mapping[str, Any]) -> str:
    """Return an accuracy with its confidence interval, such as `test accuracy: 91.2% of 500 photos (...)`."""
    low, high = scores["interval95"]
    return (
        f"{name} accuracy: {scores['accuracy']:.1%} of {scores['photos']} photos "
        f"(95% confidence interval {low:.1%} to {high:.1%})"
    )
