"""The keywords of an archive, and how many photos have each."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import Any

from flowers_batch.config import ArchiveConfig
from flowers_batch.dataset.photo_sources import open_originals
from flowers_batch.dataset.spreadsheet import write_rows
from flowers_batch.metadata.archive_keywords import PhotoKeywords, folded, keywords_of
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter
from flowers_batch.sources.skipping import Skipping
from flowers_batch.storage.opening import PathOrUrl, split_file
from flowers_batch.text import shortened

_MAX_KEYWORDS = 1_000_000  # different ones in memory, some hundred bytes each
_FAILURES_NAMED = 1000
_BETWEEN_UPDATES = 256  # photos
_SHOWN = 10


class KeywordCounts:
    """Counts keywords. Those that differ in case only count as one, spelled as at first.

    Args:
        max_keywords: Different keywords in memory; photos' further ones are not counted.

    Attributes:
        photos: How many were read.
        with_keywords: How many of them have a keyword.
        uncounted: How often a keyword was not counted, as there are too many different ones.
        unread: Photos whose keywords could not all be read.
        failures: The first of these: `path`, and `message`, which says why.
    """

    def __init__(self, max_keywords: int = _MAX_KEYWORDS):
        self.photos = self.with_keywords = self.uncounted = self.unread = 0
        self.failures: list[dict[str, str]] = []
        self._max_keywords = max_keywords
        self._counts = Counter[str]()
        self._spellings: dict[str, str] = {}

    def add(self, photo: PhotoKeywords) -> None:
        """Count the keywords of a photo; one that is a level of another one's path is not counted beside it."""
        self.photos += 1
        self.with_keywords += bool(photo.given)
        if photo.problems:
            self.unread += 1
            if len(self.failures) < _FAILURES_NAMED:
                self.failures.append({"path": photo.path, "message": " ".join(photo.problems)})
        keywords = {folded(word): word for word in reversed(photo.given)}
        levels = {level for key in keywords if "/" in key for level in key.split("/")}
        for key in keywords.keys() - levels:
            if key in self._counts or len(self._counts) < self._max_keywords:
                self._counts[key] += 1
                self._spellings.setdefault(key, keywords[key])
            else:
                self.uncounted += 1

    def most_frequent(self, count: int | None = None) -> list[tuple[str, int]]:
        """Return the keywords that most photos have, with how many have each; None: all keywords."""
        found = ((self._spellings[key], number) for key, number in self._counts.items())
        return heapq.nsmallest(count or len(self._counts), found, key=lambda each: (-each[1], each[0]))

    def describe(self) -> str:
        """Return the most frequent keywords as text; empty if there are none."""
        found = self.most_frequent(_SHOWN)
        more = f" and {len(self._counts) - _SHOWN} more" if len(self._counts) > _SHOWN else ""
        return ", ".join(f"{shortened(keyword)} {number}" for keyword, number in found) + more


def keywords(
    source: PathOrUrl,
    config: ArchiveConfig | None = None,
    *,
    csv: PathOrUrl | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> dict[str, Any]:
    """List the keywords that the photos of an archive carry in themselves and in their sidecars.

    Keywords that `tag` wrote do not count.

    Args:
        source: Photos, as for `encode`.
        config: Which photos: `root`, `include_hidden` and `exclude`; None: the defaults.
        csv: A file for all keywords, with the columns `keyword` and `photos`.
        reporter: Receives progress.

    Returns:
        `keywords`, those that most photos have first: `keyword`, whose levels are separated by `/` if it is a path, and
        `photos`; how many `photos` there are, and how many of them are `with_keywords`; `uncounted` keywords, as there
        are too many different ones; `unread`, photos whose keywords could not all be read, and `failures`, the `path`
        and the `message` of the first thousand of these.

    Raises:
        InputError: There are no such photos.
        RunError: They no longer exist, or a file cannot be written.
    """
    if csv is not None:
        split_file(csv)  # refuses what cannot be written before the work
    config = config or ArchiveConfig()
    photos = open_originals(source, config.root, Skipping(config.include_hidden, config.exclude))
    counts = KeywordCounts()
    for photo in keywords_of(photos, photos.batches()):
        counts.add(photo)
        if counts.photos % _BETWEEN_UPDATES == 0:
            reporter.update(Progress(f"reading keywords: {counts.photos} photos"))
    rows = [{"keyword": keyword, "photos": number} for keyword, number in counts.most_frequent()]
    if csv is not None:
        write_rows(csv, ("keyword", "photos"), rows)
    names = ("photos", "with_keywords", "uncounted", "unread", "failures")
    return {"keywords": rows} | {name: getattr(counts, name) for name in names}
