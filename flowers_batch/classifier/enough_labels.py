"""Whether there are enough labels to fit a first classifier to, while photos are being labelled."""

from __future__ import annotations

from collections.abc import Mapping

MIN_CLASSES, MIN_PHOTOS = 2, 5  # of each class


def can_fit(counts: Mapping[str, int]) -> bool:
    """Return whether there are enough labels for a first classifier: two classes of five photos each.

    Args:
        counts: How many photos each class has.
    """
    return sum(count >= MIN_PHOTOS for count in counts.values()) >= MIN_CLASSES
