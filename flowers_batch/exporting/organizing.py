"""A tree with a folder per class, which shows the photos of an archive."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from flowers_batch.config import OrganizeConfig
from flowers_batch.dataset.job import JOB
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.errors import InputError
from flowers_batch.exporting.labelled_photos import LabelledPhoto, labelled_photos
from flowers_batch.exporting.local_photos import open_local_photos
from flowers_batch.exporting.shown_files import ShownFiles
from flowers_batch.exporting.tree_disk import State, TreeDisk
from flowers_batch.exporting.tree_kinds import Copies, HardLinks, Kind, SymbolicLinks
from flowers_batch.exporting.tree_names import class_folders, folder_keys
from flowers_batch.exporting.tree_plan import FileInTree, Plan
from flowers_batch.exporting.tree_record import OWN, read_record, write_record
from flowers_batch.exporting.tree_tally import FAILED, UNKNOWN, Tally
from flowers_batch.progress import NULL_REPORTER, Progress, Reporter
from flowers_batch.sources.ordering import scratch_database
from flowers_batch.sources.pairs import pair_key
from flowers_batch.storage.folder import LOCK, Folder
from flowers_batch.storage.locks import hold_lock
from flowers_batch.storage.opening import PathOrUrl, open_folder

_DEFAULT = OrganizeConfig()


def organize(
    predictions: PathOrUrl,
    tree: str | os.PathLike[str],
    config: OrganizeConfig = _DEFAULT,
    *,
    images: PathOrUrl | None = None,
    root: PathOrUrl | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> dict[str, Any]:
    """Make a tree with a folder per class, whose entries show the photos of predictions. Originals are not changed.

    Run again, it makes, moves and removes entries, so that the tree shows the predictions as they are then. What others
    put into the tree is left alone; entries that they removed are made again.

    Args:
        predictions: The predictions folder.
        tree: The tree, on this machine.
        config: Which photos it shows, and how.
        images: Where the photos are, if they have moved, or are at a place that may not be followed.
        root: What the paths of a list are relative to, likewise.
        reporter: Receives progress.

    Returns:
        `photos` (a pair counts as one) and their number in each of `classes`; entries, sidecars included, that are
        `new`, `moved` (their photo has another label), `replaced` (they show it in another way than before),
        `unchanged`, `removed` or `kept` (they are no longer wanted, but were changed, or their photo does not exist
        elsewhere); photos that are left out as `unknown`, `failed` or `missing`; and `examples` of entries.

    Raises:
        InputError: It is not a finished predictions folder, its photos are not files on this machine or all missing, or
            the tree is in the photos' folder or contains it.
        RunError: A file cannot be read or written. Run again, it goes on.
    """
    run = open_run(predictions, PREDICTIONS, {"images": images, "root": root})
    if ":/" in os.fspath(tree):  # a secret may be in it
        raise InputError("A tree is made on this machine's disk: give a path, not a URL.")
    where = open_folder(os.path.realpath(tree))
    if where.exists(JOB):
        raise InputError(f"{where.url} is a run's folder: choose another place for the tree.")
    photos, own = open_local_photos(*run.photos), open_folder(where.at(OWN))
    files = ShownFiles(photos, where.path)
    with ExitStack() as stack:
        if not config.dry_run:
            stack.enter_context(hold_lock(own.at(LOCK), where.path))
            own.sweep()
        kind = _kind(config, where.path)
        disk = TreeDisk(os.fsencode(where.path), kind, files)
        stack.callback(disk.close)
        folders = class_folders(_classes(run))
        database = stack.enter_context(scratch_database())
        plan = Plan(database, disk, kind, folder_keys(folders.values()), read_record(own))
        tally = Tally()
        labelled = photos.known(tally.counted(labelled_photos(run, config.min_probability, reporter)))
        _plan(plan, labelled, files, folders, tally)
        if tally.missing and not tally.shown:
            raise InputError(
                f"{photos.source.url} has none of the photos that the tree is to show: say where they are by `images`."
            )
        _carry_out(plan, disk, None if config.dry_run else own, tally, reporter)
    return {"tree": where.path, **tally.to_json()}


def _kind(config: OrganizeConfig, tree: str) -> Kind:
    if config.copy:
        return Copies()
    if config.hardlink:
        return HardLinks()
    existing = tree
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    return SymbolicLinks(os.fsencode(tree), os.stat(existing).st_dev)


def _classes(run: Run) -> set[str]:
    found: set[str] = set()
    for batch in run.batches(["prediction"]):
        found.update(batch["prediction"].drop_null().unique().to_pylist())
    return found


def _plan(
    plan: Plan, labelled: Iterator[LabelledPhoto], files: ShownFiles, folders: Mapping[str, str], tally: Tally
) -> None:
    """Add all photos that have a label to the plan, each with its sidecars."""
    key, sidecars = "", set[str]()  # those that were added for the photos with this key
    for photo in labelled:
        if photo.label is None:
            tally.left_out[FAILED if photo.has_failed else UNKNOWN] += 1
            continue
        if pair_key(photo.paths[0]) != key:
            key, sidecars = pair_key(photo.paths[0]), set()
        planned = plan.add(folders[photo.label], list(_files(photo, files, sidecars)))
        if planned:
            tally.add_photo(photo.label, planned)


def _files(photo: LabelledPhoto, files: ShownFiles, sidecars: set[str]) -> Iterator[FileInTree]:
    """Yield the files of a photo that exist, and their sidecars, except those of an earlier photo of the same name."""
    for path in photo.paths:
        file = files.find(path)
        if file is None:
            continue
        name = os.fsdecode(os.path.basename(file.where))
        yield FileInTree(file, name)
        for position, sidecar in files.sidecars(file):
            if sidecar.path not in sidecars:
                sidecars.add(sidecar.path)
                yield FileInTree(sidecar, name, position)


def _carry_out(plan: Plan, disk: TreeDisk, own: Folder | None, tally: Tally, reporter: Reporter) -> None:
    """Have the tree as planned.

    The record names all entries before the first one is made, so that the next run knows those of one that was killed.

    Args:
        plan: The plan.
        disk: The tree.
        own: The folder of the record; None to change nothing.
        tally: Counts entries.
        reporter: Receives progress.
    """
    changes = tally.to_make > 0 or plan.has_unwanted()
    if own is not None and changes:
        write_record(own, plan.all_made())
    for entries, is_elsewhere in plan.unwanted():
        state = disk.state(entries[0], None, entries)
        if state == State.OWN and not disk.is_removable(entries):
            plan.keep(entries)
            state = State.FOREIGN
        if state == State.OWN and own is not None:
            disk.remove(entries[0])
        tally.add_unwanted(entries[0], state, is_elsewhere)
    for number, planned in enumerate(plan.to_make() if own is not None else (), 1):
        state = disk.state(planned.entry, None, plan.made_as(planned.entry))
        disk.make(planned.entry, planned.place, state)
        reporter.update(Progress(done=number, total=tally.to_make))
    if own is not None and changes:
        write_record(own, plan.remaining())
