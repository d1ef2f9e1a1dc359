"""Labels from keywords that people gave: the class of a photo is the one that its keywords stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.classifier.keyword_classes import KeywordClasses, read_classes
from flowers_batch.classifier.keyword_counts import KeywordCounts
from flowers_batch.classifier.labels_file import LabelsFile
from flowers_batch.dataset.foreign_rows import foreign_paths
from flowers_batch.dataset.manifest import read_rows
from flowers_batch.dataset.manifest_part import MISSING
from flowers_batch.dataset.photo_sources import open_originals
from flowers_batch.dataset.run_folder import Run
from flowers_batch.errors import InputError
from flowers_batch.metadata.archive_keywords import PhotoKeywords, keywords_of
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.relative_paths import foreign_path
from flowers_batch.sources.source import Source
from flowers_batch.text import shortened

_BETWEEN_UPDATES = 256  # photos
_EXAMPLES = 5
_CLASSES_SHOWN = 10
_SAMPLE = 10_000  # photos whose keywords are counted if no class is named


@dataclass(frozen=True)
class KeywordLabels(LabelsFile):
    """Labels by path, from keywords.

    Attributes:
        several: Photos that have no label since their keywords stand for several classes: `path` and `classes`.
        unread: Photos whose keywords could not all be read.
        failures: Some of these: `path`, and `message`, which says why.
    """

    several: list[dict[str, Any]] = field(default_factory=list)
    unread: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)


def read_keyword_labels(run: Run, classes: Sequence[str], reporter: Reporter = NULL_REPORTER) -> KeywordLabels:
    """Return the labels of a codes folder's photos from their keywords.

    Args:
        run: The codes folder. Its photos, and their sidecars, are read where they are now.
        classes: As `read_classes` takes them.
        reporter: Receives progress, and what a person should check.

    Raises:
        InputError: No class is named, or no photo has a keyword of one: the most frequent keywords are named. Or the
            photos no longer exist.
    """
    chosen, counts = read_classes(classes), KeywordCounts()
    labels, several = dict[str, str](), list[dict[str, Any]]()
    for photo in islice(_photos_of(run, reporter), None if chosen.names else _SAMPLE):
        counts.add(photo)
        found = chosen.of(photo.given)
        if len(found) == 1:
            labels[photo.path] = found[0]
        elif found:
            several.append({"path": photo.path, "classes": found})
    if not labels:
        raise _no_class(chosen, counts, several)
    if missing := sorted(set(chosen.names).difference(labels.values())):
        reporter.message(f"no photo has the keywords of {_listed(missing)} alone")
    return KeywordLabels(labels, 0, {}, several, counts.unread, counts.failures[:_EXAMPLES])


def check_keywords(source: Source, classes: Sequence[str]) -> None:
    """Check before photos are encoded that some have a keyword of a class.

    Raises:
        InputError: None has, or no class is named: the most frequent keywords are named.
    """
    chosen, counts = read_classes(classes), KeywordCounts()
    several = list[dict[str, Any]]()
    for photo in islice(keywords_of(source, source.batches()), None if chosen.names else _SAMPLE):
        counts.add(photo)
        found = chosen.of(photo.given)
        if len(found) == 1:
            return
        several += [{"path": photo.path, "classes": found}] if found and not several else []
    raise _no_class(chosen, counts, several)


def _photos_of(run: Run, reporter: Reporter) -> Iterator[PhotoKeywords]:
    source = open_originals(*run.photos)
    # A list may name files anywhere, and anyone may have written the manifest; other sources refuse such rows.
    if isinstance(source, ListSource) and (path := next(foreign_paths(run.folder, run.manifest, source), None)):
        raise foreign_path(path, source.url)
    for number, photo in enumerate(keywords_of(source, _rows_of(run))):
        if number % _BETWEEN_UPDATES == 0:
            reporter.update(Progress(f"reading keywords: {number} of {run.manifest.images} photos"))
        yield photo


def _rows_of(run: Run) -> Iterator[pa.Table]:
    for shard in run.manifest.shards:
        rows = read_rows(run.folder, shard)
        yield rows.filter(pc.not_equal(rows["action"], MISSING))


def _no_class(chosen: KeywordClasses, counts: KeywordCounts, several: Sequence[dict[str, Any]]) -> InputError:
    """Return the error for photos of which none has the keywords of one class."""
    most_frequent, failures = counts.describe(), counts.failures
    photos = f"{'the first ' if counts.photos == _SAMPLE and not chosen.names else ''}{counts.photos} photos"
    photos += f" ({counts.unread} could not all be read, such as {failures[0]['path']})" if failures else ""
    if not most_frequent:
        return InputError(
            f"None of {photos} has a keyword, in itself or in a sidecar: give `labels` a CSV file with path,label."
        )
    choice = f"The most frequent keywords of {photos} are {most_frequent}"
    if not chosen.names:
        example = ",".join(keyword for keyword, _ in counts.most_frequent(2))
        return InputError(
            f"`labels` xmp needs `classes`, the keywords that are classes. {choice}: choose some of them, such as "
            f"`classes` {example}; `flowers-batch keywords` lists those of all photos."
        )
    if several:
        return InputError(
            f"Each photo with a keyword of `classes` {_listed(chosen.names)} has those of several classes, such as "
            f"{several[0]['path']} ({_listed(several[0]['classes'])}): choose other classes. {choice}."
        )
    return InputError(
        f"No photo has a keyword of `classes` {_listed(chosen.names)}. {choice}: choose some of them, or name them as "
        "synonyms."
    )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _CLASSES_SHOWN} more" if len(names) > _CLASSES_SHOWN else ""
    return ", ".join(map(shortened, names[:_CLASSES_SHOWN])) + more
