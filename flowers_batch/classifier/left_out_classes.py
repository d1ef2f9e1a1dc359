"""Classes that a training leaves out, since they cannot be trained, validated and tested with different photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowers_batch.config import MIN_PHOTOS_PER_CLASS

_NAMED = 20  # classes; metrics.json has all


@dataclass(frozen=True)
class LeftOutClasses:
    """Classes that are left out of a training; `metrics.json` has them by these names.

    Attributes:
        min_photos_per_class: How many photos a class needs.
        photos: How many labelled photos are left out with their classes.
        rare: Classes with fewer photos, and how many each has; near-duplicates count as one photo.
        copies: Classes with enough photos, too many of which are near-duplicates of other classes' photos; likewise.
    """

    min_photos_per_class: int = MIN_PHOTOS_PER_CLASS
    photos: int = 0
    rare: dict[str, int] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)


def sentences_on_left_out_classes(left_out: Mapping[str, Any]) -> list[str]:
    """Return sentences that name the classes; none if all classes were trained.

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
    return sentences


def classes_text(photos: Mapping[str, int]) -> str:
    """Return classes with their numbers of photos, such as `tulip (1), violet (2)`; of many, the first."""
    named = [f"{name} ({count})" for name, count in list(photos.items())[:_NAMED]]
    return ", ".join(named) + (f" and {len(photos) - _NAMED} others" if len(photos) > _NAMED else "")


def _count(classes: Mapping[str, int]) -> str:
    return "1 class is" if len(classes) == 1 else f"{len(classes)} classes are"
