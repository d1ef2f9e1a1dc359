"""The labelled photos of a codes folder, by labels that people gave."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.classifier.chosen import NOT_RECORDED, are_random
from flowers_batch.classifier.column_labels import ColumnLabels
from flowers_batch.classifier.keyword_labels import KeywordLabels
from flowers_batch.classifier.label_merging import find_disagreements, merge_labels
from flowers_batch.classifier.label_paths import nearest_paths
from flowers_batch.classifier.label_sources import LabelSource, folder_choice, is_by_folder, open_labels
from flowers_batch.classifier.labels_file import MAX_LABEL_CHARACTERS, LabelsFile
from flowers_batch.dataset.run_folder import Run
from flowers_batch.dataset.schema import OK
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.text import shortened

_EXAMPLES = 5


@dataclass(frozen=True)
class LabelCounts:
    """Labels and photos that do not match each other; `metrics.json` has them by these names.

    Attributes:
        without_code: Labelled photos that failed to encode.
        unknown_paths: Labels of paths that the codes folder does not have.
        unknown_examples: A few of those paths.
        unknown_nearest: For each of these, the most similar path of a photo with the same file name, or None.
        empty_labels: Rows of the labels files with a path and no label.
        unlabelled: Photos with a code and no label.
        similar_classes: Classes that differ only in case or spaces: sets of names.
        unreadable_labels: Photos whose label in a column, or in a member beside them, is none that can be read.
        disagreements: Photos with different labels in different files, as `find_disagreements` returns them.
        several_classes: Photos without a label whose keywords stand for several classes: `path` and `classes`.
        unread_keywords: Photos whose keywords could not all be read.
        unread_examples: A few of these: `path`, and `message`, which says why.
    """

    without_code: int
    unknown_paths: int
    unknown_examples: list[str]
    unknown_nearest: list[str | None]
    empty_labels: int
    unlabelled: int
    similar_classes: list[list[str]]
    unreadable_labels: int
    disagreements: list[dict[str, Any]]
    several_classes: list[dict[str, Any]] = field(default_factory=list)
    unread_keywords: int = 0
    unread_examples: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class LabelledPhotos:
    """The labelled photos of a codes folder that have a code.

    Attributes:
        paths: Their keys.
        labels: str [N]: their classes' names.
        digests: S32 [N]: SHA-256 of their files.
        hashes: uint64 [N]: perceptual hashes.
        rows: int [N]: the row of each one's code in the codes folder, counted over all its shards; ascending.
        chosen: str [N]: how each was chosen to be labelled: one of `CHOSEN`, or empty.
        counts: What is not among them, and why.
    """

    paths: list[str]
    labels: NDArray[np.str_]
    digests: NDArray[np.bytes_]
    hashes: NDArray[np.uint64]
    rows: NDArray[np.int_]
    chosen: NDArray[np.str_]
    counts: LabelCounts

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.int_]) -> LabelledPhotos:
        """Return some of them, by a mask or by positions, with the counts of all."""
        paths = [self.paths[number] for number in np.arange(len(self.paths))[chosen].tolist()]
        arrays = {name: getattr(self, name)[chosen] for name in ("labels", "digests", "hashes", "rows", "chosen")}
        return replace(self, paths=paths, **arrays)

    @property
    def are_random(self) -> NDArray[np.bool_]:
        """Which photos count as randomly chosen, bool [N]: only they tell how good a classifier is."""
        return are_random(self.chosen.tolist())

    @property
    def ways(self) -> dict[str, int]:
        """How many photos were chosen in each recorded way; empty if none is recorded."""
        return dict(Counter(way for way in self.chosen.tolist() if way != NOT_RECORDED))

    @property
    def sha256(self) -> list[bytes]:
        """The digests with all their 32 bytes: NumPy strips trailing zeros from an array's elements."""
        return [digest.ljust(32, b"\0") for digest in self.digests.tolist()]

    @property
    def conflicts(self) -> list[dict[str, str]]:
        """Photos of equal bytes and different labels: for each such set, the labels by path."""
        by_digest = defaultdict[bytes, dict[str, str]](dict)
        for path, digest, label in zip(self.paths, self.digests, self.labels.tolist(), strict=True):
            by_digest[digest][path] = label
        return [labels for labels in by_digest.values() if len(set(labels.values())) > 1]


def read_labelled(
    run: Run, labels: Sequence[str], reporter: Reporter = NULL_REPORTER, *, classes: Sequence[str] = ()
) -> LabelledPhotos:
    """Return the labelled photos of a codes folder, read as a stream and without their codes.

    Args:
        run: The codes folder.
        labels: Each is `folder`, `folder:N`, `column:NAME`, `xmp`, or a CSV or Parquet file with the columns `path` and
            `label`; if several label a photo, the last one counts.
        reporter: Receives what a person should check.
        classes: For `xmp`: which keywords are classes.

    Raises:
        InputError: No photo is labelled, a label is too long, a file or a table lacks a column, or `folder` can be read
            in several ways.
    """
    sources = open_labels(run, labels, classes, reporter)
    files = {name: source for name, source in zip(labels, sources, strict=True) if isinstance(source, LabelsFile)}
    unmatched = set[str]().union(*(file.labels for file in files.values()))
    kept: list[tuple[list[Any], ...]] = []  # of each batch: paths, digests, hashes, labels, chosen, rows
    without_code = unlabelled = before = 0
    example = "roses/1.jpg"
    for batch in run.batches(["path", "sha256", "phash", "status"]):
        ok = pc.equal(batch["status"], OK).to_numpy(zero_copy_only=False)
        paths = batch["path"].to_pylist()
        names, chosen = merge_labels(batch["path"], sources)
        unmatched.difference_update(paths)
        has_label = np.array([name is not None for name in names], bool)
        without_code += int((has_label & ~ok).sum())
        unlabelled += int((~has_label & ok).sum())
        rows = np.flatnonzero(has_label & ok)
        values = [batch[name].take(pa.array(rows)).to_pylist() for name in ("path", "sha256", "phash")]
        kept.append((*values, [names[row] for row in rows], [chosen[row] for row in rows], (before + rows).tolist()))
        before += len(batch)
        example = next(iter(paths), example)
    found = [list(chain.from_iterable(part[column] for part in kept)) for column in range(6)]
    columns = [source for source in sources if isinstance(source, ColumnLabels)]
    for column in columns:
        column.check_found()
    unknown = sorted(unmatched)[:_EXAMPLES]
    nearest = nearest_paths(unknown, run) if unknown else []
    if not found[0]:
        raise _nothing_labelled(run, labels[-1], unknown, next(filter(None, nearest), example))
    _check_lengths(found[0], found[3])
    similar = _similar_classes(set(found[3]))
    if similar:
        reporter.message(_similar_sentence(similar))
    return LabelledPhotos(
        paths=found[0],
        labels=np.array(found[3]),
        digests=np.array(found[1], "S32"),
        hashes=np.array(found[2], np.uint64),
        chosen=np.array(found[4]),
        rows=np.array(found[5], np.int64),
        counts=LabelCounts(
            without_code=without_code,
            unknown_paths=len(unmatched),
            unknown_examples=unknown,
            unknown_nearest=nearest,
            empty_labels=sum(file.empty for file in files.values()),
            unlabelled=unlabelled,
            similar_classes=similar,
            unreadable_labels=sum(column.unreadable for column in columns),
            disagreements=[each for each in find_disagreements(files) if each["path"] not in unmatched],
            **_keyword_counts(sources, set(found[0])),
        ),
    )


def _keyword_counts(sources: Iterable[LabelSource], labelled: Collection[str]) -> dict[str, Any]:
    """Return what `LabelCounts` has of keywords; photos that another source labels need no decision."""
    keywords = next((source for source in sources if isinstance(source, KeywordLabels)), None)
    if keywords is None:
        return {}
    return {
        "several_classes": [photo for photo in keywords.several if photo["path"] not in labelled],
        "unread_keywords": keywords.unread,
        "unread_examples": keywords.failures,
    }


def _check_lengths(paths: Sequence[str], labels: Sequence[str]) -> None:
    for path, label in zip(paths, labels, strict=True):
        if len(label) > MAX_LABEL_CHARACTERS:
            raise InputError(
                f"The label of {path} has {len(label)} characters, and {MAX_LABEL_CHARACTERS} are allowed: shorten it, "
                "or check the quotation marks of the labels file."
            )


def _similar_classes(classes: Iterable[str]) -> list[list[str]]:
    """Return sets of names that are equal but for case and spaces."""
    similar = defaultdict[str, list[str]](list)
    for name in sorted(classes):
        similar["".join(name.split()).casefold()].append(name)
    return [names for names in similar.values() if len(names) > 1]


def _similar_sentence(similar: Sequence[Sequence[str]]) -> str:
    sets = "; ".join(", ".join(map(repr, names)) for names in similar[:_EXAMPLES])
    more = f"; and {len(similar) - _EXAMPLES} more" if len(similar) > _EXAMPLES else ""
    return f"these classes differ only in case or spaces: {sets}{more}"


def _nothing_labelled(run: Run, name: str, unknown: Sequence[str], example: str) -> InputError:
    """Return the error for labels of no photo.

    Args:
        run: The codes folder.
        name: The last one of `labels`.
        unknown: Paths in labels files that no photo has.
        example: A photo's path, if possible one that is like those.
    """
    if not run.summary["ok"]:
        return InputError(f"None of the photos in {run.folder.url} has a code: see why they failed with a report.")
    if is_by_folder(name):
        choice = folder_choice(run)
        advice = f"choose `labels` {choice}" if choice else "put each into a folder named for its class"
        advice += ", or give `labels` a CSV file with path,label."
    elif unknown:
        advice = (
            f"no photo has the path {shortened(unknown[0])} of {name}; write paths as in the column `path` of the "
            f"codes, such as {example}."
        )
    else:
        advice = f"fill in the column `label` of {name} for paths such as {example}."
    return InputError(f"None of the photos in {run.folder.url} has a label: {advice}")
