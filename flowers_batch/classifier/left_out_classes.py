"""Classes that a training leaves out, or that it cannot test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MIN_TESTED_GROUPS = 3  # of a class that is in every split; a group's photos are near-duplicates
_NAMED = 20  # classes; metrics.json has all


@dataclass(frozen=True)
class LeftOutClasses:
    """Classes that are left out of a training, or of its test; `metrics.json` has them by these names.

    Attributes:
        min_photos_per_class: How many photos a class needs.
        photos: How many labelled photos are left out with their classes.
        rare: Classes with fewer photos, and how many each has; near-duplicates count as one photo.
        copies: Classes with enough photos, too many of which are near-duplicates of other classes' photos; likewise.
        untested: Classes that are trained, with fewer than the three photos that a class needs to be tested; likewise.
    """

    min_photos_per_class: int = 1
    photos: int = 0
    rare: dict[str, int] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    untested: dict[str, int] = field(default_factory=dict)


def sentences_on_left_out_classes(left_out: Mapping[str, Any]) -> list[str]:
    """Return sentences that name the classes; none if all classes were trained and tested.

    Args:
        left_out: The fields of a `LeftOutClasses`.
    """
    sentences = []
    if rare := left_out["rare"]:
        sentences.append(
            f"{_count(rare)} left out, with fewer than {left_out['min_photos_per_class']} photos that are no copies of "
            f"each other: {classes_text(rare)}."
        )
    if copies := left_out["copies"]:
        sentences.append(
            f"{_count(copies)} left out, as their photos are copies of other classes' photos: {classes_text(copies)}; "
            "correct their labels."
        )
    if untested := left_out.get("untested"):  # version 0.1 did not train such classes
        has = "1 class has" if len(untested) == 1 else f"{len(untested)} classes have"
        sentences.append(
            f"{has} fewer than {MIN_TESTED_GROUPS} photos that are no copies of each other, too few to be tested: "
            f"{classes_text(untested)}; label more."
        )
    return sentences


def classes_text(photos: Mapping[str, int]) -> str:
    """Return classes with their numbers of photos, such as `tulip (1), violet (2)`; of many, the first."""
    named = [f"{name} ({count})" for name, count in list(photos.items())[:_NAMED]]
    return ", ".join(named) + (f" and {len(photos) - _NAMED} others" if len(photos) > _NAMED else "")


def _count(classes: Mapping[str, int]) -> str:
    return "1 class is" if len(classes) == 1 else f"{len(classes)} classes are"
