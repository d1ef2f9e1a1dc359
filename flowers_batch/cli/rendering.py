"""Results as text."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowers_batch.classifier.metrics_sentences import HELD_OUT_NAMES
from flowers_batch.cli.metrics_rendering import accuracy_text
from flowers_batch.sources.left_out_text import describe_left_out
from flowers_batch.text import joined_visibly

if TYPE_CHECKING:
    from tensorflow_vgg.weights import WeightsDescription

ROWS_SHOWN = 20  # of a list; its file has all
_BAR_WIDTH = 40  # characters for 100%
_OTHER_COUNTS = {
    "missing": "missing, and kept until --prune",
    "duplicates": "with the same bytes as an earlier one",
    "repeated": "listed more than once",
}


def summary_text(verb: str, out: str, summary: Mapping[str, Any]) -> str:
    """Return the summary of a run as text.

    Args:
        verb: What was done, such as `encoded`.
        out: The run's folder.
        summary: `Summary.to_json()`.
    """
    return joined_visibly(_summary_lines(verb, out, summary))


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


def demo_text(result: Mapping[str, Any]) -> str:
    """Return the result of a demo as text."""
    lines = [accuracy_text(HELD_OUT_NAMES[result["accuracy_of"]], result["scores"])]
    if result["pool"]:
        layer = result["layer"]
        lines.append(f"The weights end before the fully connected layers, so the codes are {layer}, averaged.")
    if result["notes"]:
        lines += [*result["notes"], "Therefore this accuracy says nothing about real photos."]
    review = shlex.join(["flowers-batch", "review", result["predictions"], "--follow-links"])
    return joined_visibly([*lines, f"report: {result['report']}", f"to correct labels: {review}"])


def list_text(lines: Iterable[str], count: int, subject: str, none: str, out: str | None) -> str:
    """Return the first rows of a list, their number, and where all of them are.

    Args:
        lines: The rows as text, at least those that are shown.
        count: The number of all rows.
        subject: What there are `count` of, such as `labels look wrong`.
        none: What is said if there are none.
        out: The file that has all rows, if there is one.
    """
    if not count:
        return none
    shown = f"; the first {ROWS_SHOWN} are shown" if count > ROWS_SHOWN else ""
    where = f"all are in {out}: edit it, then pass it to `train` with --labels" if out else "--out FILE writes all"
    return joined_visibly([*lines, f"{count} {subject}{shown}; {where}"])


def verification_text(folder: str, counts: Mapping[str, int], problems: Sequence[str]) -> str:
    """Return the counts and the problems of a verification as text."""
    counted = f"{folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    return joined_visibly([counted, *(problems or ["complete: each image has one row, and all counts are right"])])


def weights_text(found: WeightsDescription) -> str:
    """Return what a weights file holds."""
    lines = [f"{found.path}: {found.network}, {found.known or 'not a published file'}"]
    for name, shapes in found.layers.items():
        lines.append(f"  {name:8} " + ", ".join("x".join(map(str, shape)) for shape in shapes))
    return joined_visibly([*lines, f"  sha256   {found.sha256}", f"  identity {found.identity}"])


def random_weights_notes(weights: str) -> list[str]:
    """Return a warning if the network's weights are random, else nothing."""
    if not weights.startswith("random:"):
        return []
    return [f"The weights are {weights}, never trained: results say nothing about what real weights give."]
