"""How much a report shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PageLimits:
    """Limits that keep a report readable, and small enough to mail.

    Attributes:
        picture_bytes: Of all thumbnails and their captions.
        photos: Thumbnails of each group, such as a class or a cell of the confusion matrix.
        classes: Classes with thumbnails. With more classes there is no confusion matrix.
        class_rows: Classes in the table of precision and recall. Of more, the worst are shown.
        confusions: Pairs of classes in the table that replaces a confusion matrix.
        duplicate_sets: Sets of duplicates that are shown.
        digests: Digests in memory while duplicates are looked for. In larger archives only a part of the sets is found.
        failures: Examples of each reason.
    """

    picture_bytes: int = 3_200_000
    photos: int = 6
    classes: int = 40
    class_rows: int = 1000
    confusions: int = 10
    duplicate_sets: int = 6
    digests: int = 50_000
    failures: int = 5


DEFAULT_LIMITS = PageLimits()
