"""Results as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowers_batch.classifier.left_out import left_out_sentences
from flowers_batch.sources.left_out_text import describe_left_out

if TYPE_CHECKING:
    from tensorflow_vgg.weights import WeightsDescription

ROWS_SHOWN = 20  # of a list; its file has all
_CONFLICTS_SHOWN = 5  # metrics.json has all
_UNKNOWN_PATHS_SHOWN = 3
_BAR_WIDTH = 40  # characters for 100%
_OTHER_COUNTS = {
    "missing": "missing, and kept until --prune",
    "duplicates": "with the same bytes as another",
    "repeated": "listed more than once",
}


def summary_text(verb: str, out: str, summary: Mapping[str, Any]) -> str:
    """Return the summary of a run as text.

    Args:
        verb: What was done, such as `encoded`.
        out: The run's folder.
        summary: `Summary.to_json()`.
    """
    return "\n".join(_summary_lines(verb, out, summary))


def _summary_lines(verb: str, out: str, summary: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{verb} {summary['images']} images: {summary['ok']} ok, {summary['failed']} failed, "
        f"{summary['resumed']} done before, {summary['ignored']} other files ignored"
    )
    changes = ", ".join(f"{count} {name}" for name, count in summary["changes"].items() if count)
    if changes and summary["changes"].keys() > {"new"}:
        yield f"  since the last listing: {changes}"
    others = [f"{summary[name]} {words}" for name, words in _OTHER_COUNTS.items() if summary[name]]
    if others:
        yield f"  {', '.join(others)}"
    for words, text in describe_left_out(summary).items():
        yield f"  {words}: {text}"
    if summary["reasons"]:
        yield "  failed: " + ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    if summary["stages"]:
        yield f"  {summary['seconds']:.1f} s, {summary['images_per_second']:.1f} images/s after start-up"
        yield from _stage_lines(summary["stage_rates"], summary["stage_shares"])
    yield f"  {out}"


def _stage_lines(rates: Mapping[str, float | None], shares: Mapping[str, float]) -> Iterator[str]:
    """Yield what limits a run: each stage's images/s if it were alone, and a bar of its share of the time."""
    yield "  stage: images/s alone, share of time"
    for stage, share in shares.items():
        rate = rates[stage]
        text = f"{rate:10,.1f}" if rate else f"{'':10}"
        yield f"    {stage:8}{text}  {share:4.0%} {'#' * round(share * _BAR_WIDTH)}".rstrip()


def training_text(metrics: Mapping[str, Any], model: str) -> str:
    """Return the result of a training run as text.

    Args:
        metrics: The content of `metrics.json`.
        model: The model's folder.
    """
    return "\n".join(_training_lines(metrics, model))


def _training_lines(metrics: Mapping[str, Any], model: str) -> Iterator[str]:
    trained = "fine-tuned the network" if "tuning" in metrics else f"trained {metrics['head']}"
    yield f"{trained} on {metrics['photos']['train']} photos of {len(metrics['classes'])} classes: {model}"
    for split in ("validation", "test"):
        yield f"  {accuracy_text(split, metrics[split])}"
    yield from _split_lines(metrics["split"])
    yield from _calibration_lines(metrics["calibration"], metrics["unknown"])
    if "tuning" in metrics:
        yield from _tuning_lines(metrics["tuning"])
    if len(metrics["learning_curve"]) > 1:
        yield "  would more labels help? test accuracy by labels used:"
        for point in metrics["learning_curve"]:
            yield f"    {point['share']:4.0%} ({point['photos']} photos) {point['accuracy']:6.1%}"
    yield from _class_lines(metrics["classes"], metrics["test"])
    yield from _label_lines(metrics)


def _split_lines(split: Mapping[str, Any]) -> Iterator[str]:
    if split["accuracy_without_groups"] is not None:
        yield (
            f"  {split['grouped_photos']} photos are near-duplicates of others: they never straddle the split "
            f"(if they did, the accuracy would seem to be {split['accuracy_without_groups']:.1%})"
        )
    if split["moved"]:
        yield f"  {split['moved']} photos changed their split since the last training, with their near-duplicates"


def _calibration_lines(calibration: Mapping[str, Any], unknown: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"  expected calibration error {calibration['ece_after']:.1%} ({calibration['ece_before']:.1%} before "
        f"temperature scaling by {calibration['temperature']:.2f})"
    )
    if unknown["precision"] is None:
        yield (
            f"  no threshold reaches a precision of {unknown['min_precision']:.0%}: all labels are marked unknown "
            "(lower it with --min-precision)"
        )
    else:
        yield (
            f"  labels with a probability below {unknown['threshold']:.1%} are marked unknown: of the validation "
            f"photos, {unknown['coverage']:.0%} are above it, and {unknown['precision']:.1%} of those are right"
        )


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


def _class_lines(classes: Sequence[str], test: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line per class: precision, recall and F1 on the test photos, and its row of the confusion matrix."""
    width = max(map(len, [*classes, "class"]))
    yield "  test photos by class, and the confusion matrix (rows: actual class, columns: predicted class)"
    yield f"    {'class':<{width}} photos precision recall     f1"
    for name, row in zip(classes, test["confusion_matrix"], strict=True):
        scores = test["per_class"][name]
        yield (
            f"    {name:<{width}} {scores['photos']:6d} {scores['precision']:9.1%} {scores['recall']:6.1%} "
            f"{scores['f1']:6.1%}  " + " ".join(f"{count:5d}" for count in row)
        )


def _label_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of the labels."""
    for sentence in left_out_sentences(metrics["left_out"]):
        yield f"  {sentence}"
    if conflicts := metrics["conflicts"]:
        yield f"  {len(conflicts)} sets of identical photos have different labels, such as:"
        for labels in conflicts[:_CONFLICTS_SHOWN]:
            yield "    " + ", ".join(f"{path} ({label})" for path, label in labels.items())
    if metrics["without_code"]:
        yield f"  {metrics['without_code']} labelled photos could not be read, and are left out"
    if metrics["unknown_paths"]:
        examples = ", ".join(metrics["unknown_examples"][:_UNKNOWN_PATHS_SHOWN])
        yield f"  {metrics['unknown_paths']} labels are for paths that the codes do not have, such as {examples}"
    if metrics["empty_labels"]:
        yield f"  {metrics['empty_labels']} rows of the label files have no label"


def accuracy_text(name: str, scores: Mapping[str, Any]) -> str:
    """Return an accuracy with its confidence interval, such as `test accuracy: 91.2% of 500 photos (...)`."""
    low, high = scores["interval95"]
    return (
        f"{name} accuracy: {scores['accuracy']:.1%} of {scores['photos']} photos "
        f"(95% confidence interval {low:.1%} to {high:.1%})"
    )


def demo_text(result: Mapping[str, Any]) -> str:
    """Return the result of a demo as text."""
    lines = [accuracy_text("test", result["test"])]
    if result["notes"]:
        lines += [*result["notes"], "Therefore this accuracy says nothing about real photos."]
    return "\n".join([*lines, f"report: {result['report']}"])


def list_text(lines: Iterable[str], count: int, subject: str, out: str | None) -> str:
    """Return the first rows of a list, their number, and where all of them are.

    Args:
        lines: The rows as text, at least those that are shown.
        count: The number of all rows.
        subject: What there are `count` of, such as `labels look wrong`.
        out: The file that has all rows, if there is one.
    """
    if not count:
        return f"no {subject}"
    shown = f"; the first {ROWS_SHOWN} are shown" if count > ROWS_SHOWN else ""
    where = f"all are in {out}: edit it, then pass it to `train` with --labels" if out else "--out FILE writes all"
    return "\n".join([*lines, f"{count} {subject}{shown}; {where}"])


def verification_text(folder: str, counts: Mapping[str, int], problems: Sequence[str]) -> str:
    """Return the counts and the problems of a verification as text."""
    counted = f"{folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    return "\n".join([counted, *(problems or ["complete: each image has one row, and all counts are right"])])


def weights_text(found: WeightsDescription) -> str:
    """Return what a weights file holds."""
    lines = [f"{found.path}: {found.network}, {found.known or 'not a published file'}"]
    for name, shapes in found.layers.items():
        lines.append(f"  {name:8} " + ", ".join("x".join(map(str, shape)) for shape in shapes))
    return "\n".join([*lines, f"  sha256   {found.sha256}", f"  identity {found.identity}"])


def random_weights_notes(weights: str) -> list[str]:
    """Return a warning if the network's weights are random, else nothing."""
    if not weights.startswith("random:"):
        return []
    return [f"The weights are {weights}, never trained: results say nothing about what real weights give."]
