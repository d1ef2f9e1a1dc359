"""Labels as keywords in XMP sidecars beside the photos, where photo programs read them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import groupby, islice
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

from flowers_batch.config import LIGHTROOM, TagConfig
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.exporting.labelled_photos import LabelledPhoto, labelled_photos
from flowers_batch.exporting.local_photos import LocalPhotos, open_local_photos
from flowers_batch.metadata.sidecars import (
    CHANGES,
    CREATED,
    UNCHANGED,
    SidecarError,
    exist,
    retag,
    stem_of,
    sweep,
    with_suffixes,
)
from flowers_batch.metadata.tags import Tag
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter
from flowers_batch.sources.images import path_bytes
from flowers_batch.sources.pairs import pair_key
from flowers_batch.storage.opening import PathOrUrl
from flowers_batch.text import shortened

EXAMPLES = 10  # sidecars that are shown
_THREADS = 8  # several wait for the disk at the same time, which then flushes their files together
_AT_ONCE = 1024  # sidecars
_FOLDERS_KEPT = 1024  # of which it is known that they were swept


_BESIDE = "beside"  # created beside a sidecar with the other name
_Outcome: TypeAlias = str | SidecarError


class _Task(NamedTuple):
    """A sidecar.

    `path` is the photo's key, `base` the sidecar's without its suffix, and `tag` what it is to have. `files` of photos
    are done with it.
    """

    path: str
    base: str
    tag: Tag | None
    files: int


@dataclass
class Tagging:
    """What was done with sidecars or, in a dry run, what would be done.

    Attributes:
        photos: Files of photos in the predictions.
        labelled: Of these, those that have a label which is certain enough.
        sidecars: Numbers of sidecars that were `created`, `changed`, `deleted` and `unchanged`; those of photos without
            a label count only if they are changed or deleted.
        beside: Of the created ones, those beside a sidecar with the other name that `TagConfig.sidecar` may give it:
            programs read one of both.
        failed: Numbers of sidecars that are as they were, by what is wrong.
        failures: For each of these, the first: `sidecar` and `message`.
        examples: The first sidecars that were changed: `sidecar`, `change`, `label` and `probability`.
        dry_run: Whether nothing was written.
    """

    photos: int = 0
    labelled: int = 0
    sidecars: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(CHANGES, 0)))
    beside: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    dry_run: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether no sidecar failed."""
        return not self.failed

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self) | {"sidecars": dict(self.sidecars), "failed": dict(self.failed)}

    def add(self, task: _Task, outcome: _Outcome) -> None:
        """Count a sidecar."""
        sidecar = f"{task.base}.xmp"
        if isinstance(outcome, SidecarError):
            self.failed[outcome.kind] += 1
            self.failures.setdefault(outcome.kind, {"sidecar": sidecar, "message": str(outcome)})
            return
        if outcome == UNCHANGED and task.tag is None:
            return
        if outcome == _BESIDE:
            self.beside += 1
            outcome = CREATED
        self.sidecars[outcome] += 1
        if outcome != UNCHANGED and len(self.examples) < EXAMPLES:
            tag = task.tag
            known = {"label": tag and tag.label, "probability": tag and round(tag.probability, 4)}
            self.examples.append({"sidecar": sidecar, "change": outcome} | known)


def tag(
    predictions: PathOrUrl,
    config: TagConfig = TagConfig(),  # noqa: B008, as it is frozen
    *,
    images: PathOrUrl | None = None,
    root: PathOrUrl | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> Tagging:
    """Write labels as keywords into XMP sidecars beside the photos. The photos are not opened.

    A class's name is a keyword; with levels, such as `animal/bird/owl`, each level is one, and the path is written as
    programs write hierarchies. Everything else in a sidecar stays. What is written is listed in the sidecar, so that
    the labels of another model replace it; keywords that people gave are never changed.

    If the run is killed, the same call goes on where it stopped.

    Args:
        predictions: The predictions folder.
        config: Which labels are written, and where.
        images: Where the photos are, if they have moved; a folder, or a list of paths, on this machine.
        root: The folder that the paths in a list are relative to.
        reporter: Receives progress.

    Returns:
        What was done. Sidecars that cannot be changed are counted in `failed`, and stay as they are.

    Raises:
        InputError: It is not a finished predictions folder, is damaged, or its photos are not files on this machine.
        RunError: A file of the folder cannot be read, or the scratch disk is full.
    """
    run = open_run(predictions, PREDICTIONS, {"images": images, "root": root})
    photos = open_local_photos(*run.photos)
    result = Tagging(dry_run=config.dry_run)
    labelled = photos.known(labelled_photos(run, config.min_probability, reporter))
    tasks = _tasks(labelled, config, run.job.fingerprint.digest, result)
    done, total = 0, run.manifest.images
    for task, outcome in _outcomes(tasks, photos, config.dry_run):
        result.add(task, outcome)
        done += task.files
        reporter.update(Progress(done=done, total=total, failed=result.failed.total()))
    reporter.update(Progress(done=total, total=total, failed=result.failed.total()))
    return result


def _tasks(photos: Iterable[LabelledPhoto], config: TagConfig, model: str, result: Tagging) -> Iterator[_Task]:
    """Yield which sidecar is to have which tag, and count the photos.

    Args:
        photos: Those with one name after each other, since they may share a sidecar.
        config: Which names the sidecars have, and whether their tags are removed.
        model: What identifies the model.
        result: Gains the counts.
    """
    for _, group in groupby(photos, key=lambda photo: pair_key(photo.paths[0])):
        of_name = list(group)
        result.photos += sum(len(photo.paths) for photo in of_name)
        if config.remove:
            yield from _removals(path for photo in of_name for path in photo.paths)
            continue
        result.labelled += sum(len(photo.paths) for photo in of_name if photo.label)
        bases: dict[str, list[tuple[str, LabelledPhoto]]] = {}
        for photo in of_name:
            for path in () if photo.has_failed else photo.paths:  # of one that failed, nothing is known
                base = stem_of(path) if config.sidecar == LIGHTROOM else path
                bases.setdefault(base, []).append((path, photo))
        for base, files in bases.items():
            best = max((photo for _, photo in files), key=lambda photo: photo.probability or 0.0)
            tag_ = Tag(best.label, best.probability or 0.0, model) if best.label else None
            yield _Task(files[0][0], base, tag_, len(files))


def _removals(paths: Iterable[str]) -> Iterator[_Task]:
    """Yield a task for each name that the sidecars of files may have."""
    bases = {base: path for path in paths for base in (path, stem_of(path))}
    yield from (_Task(path, base, None, int(base == path)) for base, path in bases.items())


def _outcomes(tasks: Iterable[_Task], photos: LocalPhotos, dry_run: bool) -> Iterator[tuple[_Task, _Outcome]]:
    """Do tasks, several at the same time, and yield them with what became of the sidecars."""
    tagger = _Tagger(photos, dry_run)
    iterator = iter(tasks)
    with ThreadPoolExecutor(_THREADS) as threads:
        while some := list(islice(iterator, _AT_ONCE)):
            yield from zip(some, threads.map(tagger.do, some), strict=True)


class _Tagger:
    """Does tasks.

    Args:
        photos: The photos.
        dry_run: Whether nothing is written.
    """

    def __init__(self, photos: LocalPhotos, dry_run: bool):
        self._photos, self._dry_run = photos, dry_run
        self._lock = Lock()
        self._sweep_once = lru_cache(maxsize=_FOLDERS_KEPT)(sweep)

    def do(self, task: _Task) -> _Outcome:
        """Return what became of a task's sidecar."""
        file = self._photos.file_of(task.path)
        if file is None:
            return SidecarError("in a store", "the photo is in an object store")
        if task.tag and not task.tag.is_writable:
            return SidecarError("label", f"XMP cannot have a keyword such as {shortened(task.tag.label)}")
        names = _names(task.base)
        try:
            if not self._dry_run:
                with self._lock:  # before any thread has a scratch file there
                    self._sweep_once(file.folder)
            change = retag(file, names, task.tag, write=not self._dry_run)
            other = task.path if task.base != task.path else stem_of(task.path)
            return _BESIDE if change == CREATED and other != task.base and exist(file, _names(other)) else change
        except SidecarError as error:
            return error


def _names(base: str) -> list[str]:
    """Return the names that a sidecar may have in its folder, for a key without its suffix."""
    return [os.fsdecode(os.path.basename(path_bytes(name))) for name in with_suffixes(base)]
