"""Sentences on metrics, for the terminal and the report; they claim no more than the metrics show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowers_batch.classifier.chosen import RANDOM

ALPHA = 0.05  # the p-value below which a difference is not noise
# What the accuracy of held-out photos is called, by its name in metrics.json.
HELD_OUT_NAMES = {"test": "test", "validation": "validation", "cross_validation": "cross-validated"}
_PHOTOS_SHOWN = 5
_LITTLE = 0.01  # gain in accuracy


def chosen_sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Return what photos that were not chosen at random are good for, and what is not known; none if all were.

    Args:
        metrics: The content of `metrics.json`.
    """
    others = {way: count for way, count in metrics.get("chosen", {}).items() if way != RANDOM}
    sentences = []
    if metrics["accuracy_of"] is None:
        sentences.append(
            "The accuracy is not known yet: only photos chosen at random can tell it. Label "
            f"{max(1, metrics['random_needed'])} more of them."
        )
    if others:
        ways = ", ".join(f"{way} {count}" for way, count in others.items())
        photos = "1 labelled photo was" if sum(others.values()) == 1 else f"{sum(others.values())} labelled photos were"
        sentences.append(f"{photos} not chosen at random ({ways}): trained on, and not used for any figure.")
    return sentences


def disagreement_sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Return the photos that labels files label differently, the first of them by name; none if there are none.

    Args:
        metrics: The content of `metrics.json`.
    """
    found = metrics.get("disagreements", [])
    if not found:
        return []
    photos = "1 photo has" if len(found) == 1 else f"{len(found)} photos have"
    return [
        f"{photos} different labels in different files, of which the last one counts. To settle them, copy "
        "disagreements.csv from the model's folder, correct its column `label`, and add it as the last --labels.",
        *(
            f"  {each['path']}: " + ", ".join(f"{label} ({name})" for name, label in each["labels"].items())
            for each in found[:_PHOTOS_SHOWN]
        ),
    ]


def keyword_sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Return the photos without a label because of their keywords, the first of them by name; none if there are none.

    Args:
        metrics: The content of `metrics.json`.
    """
    sentences = []
    if several := metrics.get("several_classes", []):
        photos = "1 photo has" if len(several) == 1 else f"{len(several)} photos have"
        sentences.append(
            f"{photos} keywords of several classes, and no label. To give one, fill in the column `label` of "
            "several-classes.csv in the model's folder, and add it as another --labels."
        )
        sentences += [f"  {each['path']}: {', '.join(each['classes'])}" for each in several[:_PHOTOS_SHOWN]]
    if unread := metrics.get("unread_keywords", 0):
        photos = "1 photo" if unread == 1 else f"{unread} photos"
        sentences.append(f"The keywords of {photos} could not all be read.")
        sentences += [f"  {each['path']}: {each['message']}" for each in metrics.get("unread_examples", [])]
    return sentences


def promise_sentences(unknown: Mapping[str, Any]) -> list[str]:
    """Return which labels are marked unknown, and what is promised of the others.

    Args:
        unknown: Of `metrics.json`.
    """
    random_only = unknown.get("random_only")
    if unknown["threshold"] > 1:
        asked = unknown["min_precision"]
        return [f"All labels are marked unknown: no threshold can promise a precision of {asked:g}.", *_needs(unknown)]
    marked = f"Labels with a probability below {unknown['threshold']:.1%} are marked unknown."
    if unknown.get("bound") is None:  # version 0.1
        return [marked]
    return [
        marked,
        f"Of the others, at least {unknown['bound']:.1%} are right, with a confidence of 95%, for photos drawn as "
        f"{'those chosen at random' if random_only else 'the labelled ones'} were.",
        f"That rests on {unknown['photos']} held-out photos, {unknown['coverage']:.0%} of all, of which "
        f"{unknown['precision']:.1%} were right.",
    ]


def _needs(unknown: Mapping[str, Any]) -> list[str]:
    """Return how many labels would probably be enough."""
    needed = unknown.get("labels_needed") or {}
    asked = f"{unknown['min_precision']:g}"
    kind = "randomly chosen labels" if unknown.get("random_only") else "labels"
    sentences = []
    if asked in needed:
        count = needed[asked]
        sentences.append(
            "More labels of this kind would probably not be enough either."
            if count is None
            else f"It would probably take about {_rounded(count):,} {kind} in all."
        )
    lower = [f"--min-precision {name} about {_rounded(count):,}" for name, count in needed.items() if count]
    lower = [text for text in lower if not text.startswith(f"--min-precision {asked} ")]
    if lower:
        sentences.append(f"A lower precision needs fewer: {', '.join(lower)}.")
    return sentences


def learning_sentence(metrics: Mapping[str, Any]) -> str | None:
    """Return what the second half of the labels was worth; None if it was not measured."""
    learned = metrics.get("learning_gain")
    if learned is None or len(metrics["learning_curve"]) < 2:
        return None
    if learned["gain"] <= 0 or learned["p_value"] >= ALPHA:
        return "The second half of the labels adds no more than noise."
    worth = "would help little" if learned["gain"] <= _LITTLE else "would probably help"
    return f"The second half of the labels adds {100 * learned['gain']:.1f} percentage points: more labels {worth}."


def _rounded(count: int) -> int:
    """Return a number with two significant digits, which is all that an estimate has."""
    return int(float(f"{count:.2g}"))
