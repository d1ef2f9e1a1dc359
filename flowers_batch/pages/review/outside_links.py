"""How many photos of a run are behind links that lead outside the photos' folder, and are not shown for that reason."""

from __future__ import annotations

from threading import Thread
from time import sleep

import numpy as np

from flowers_batch.pages.photos import Photos
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.progress import Reporter

_MAX_CHECKED = 20_000  # photos: a network disk takes a millisecond or so for each
_SECONDS_LATER = 1.0  # than the start: the page's first requests do not wait for the interpreter meanwhile


class OutsideLinks:
    """Counts, in a thread, the photos that are not shown because their links lead outside the photos' folder.

    Args:
        table: The photos.
        photos: Where they are read.

    Attributes:
        is_counting: Whether they are being counted.
        sentence: What a person should know; empty if there is no such photo, and until they are counted.
    """

    def __init__(self, table: PhotoTable, photos: Photos):
        self.is_counting = False
        self.sentence = ""
        self._table, self._photos = table, photos

    def start(self, reporter: Reporter) -> None:
        """Count soon; the reporter receives the sentence, if there is one."""
        self.is_counting = True
        Thread(target=self._count, args=(reporter,), daemon=True).start()

    def _count(self, reporter: Reporter) -> None:
        try:
            sleep(_SECONDS_LATER)
            self.sentence = outside_links(self._table, self._photos)
        finally:
            self.is_counting = False
        if self.sentence:
            reporter.message(self.sentence)


def outside_links(table: PhotoTable, photos: Photos, max_checked: int = _MAX_CHECKED) -> str:
    """Return a sentence on photos that are links to files outside the photos' folder; empty if none was found.

    Args:
        table: The photos.
        photos: Where they are read.
        max_checked: Photos looked at; of more, as many that are evenly spaced.
    """
    source = photos.source
    if source is None or not source.found_by_path or photos.follows_links:
        return ""
    rows = np.linspace(0, len(table) - 1, min(len(table), max_checked), dtype=np.int64)
    outside = sum(photos.are_links_outside(table.paths.take(rows).to_pylist()))
    if not outside:
        return ""
    if len(rows) == len(table):
        share = f"{outside:,} of {len(rows):,}"
    else:
        share = f"About {100 * outside / len(rows):.3g}% of the"
    return photos.sentence_on_links(share)
