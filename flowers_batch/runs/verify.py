"""Proof that a run's folder is complete: every image of the manifest is one row, and every count is true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.cluster.single_actor import run_on_one_actor
from flowers_batch.config import IMAGENET, ClusterConfig
from flowers_batch.dataset.following import follow, follow_weights
from flowers_batch.dataset.foreign_rows import foreign_paths
from flowers_batch.dataset.job import JOB, Job, read_job
from flowers_batch.dataset.manifest import Manifest, read_manifest, rows_in_path_order
from flowers_batch.dataset.photo_sources import open_photos
from flowers_batch.dataset.run_folder import read_summary
from flowers_batch.dataset.shard_file import shard_name
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.runs.sample_check import SampleCheck
from flowers_batch.runs.shard_check import check_shard
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import PathOrUrl, open_folder
from flowers_batch.storage.urls import scheme_of


@dataclass
class Verification:
    """What `verify` found.

    Attributes:
        images: Images in the manifest.
        rows: Rows in the shards.
        ok, failed: Rows of each status.
        sampled: Images that were read and encoded again.
        problems: One sentence per problem; empty where the folder is complete.
    """

    images: int = 0
    rows: int = 0
    ok: int = 0
    failed: int = 0
    sampled: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


def verify(
    where: PathOrUrl,
    *,
    deep: bool = False,
    seed: int = 0,
    images: PathOrUrl | None = None,
    root: PathOrUrl | None = None,
    weights: str | None = None,
    model: PathOrUrl | None = None,
    cluster: ClusterConfig | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> Verification:
    """Check a run's folder, with one shard in memory at a time.

    Args:
        where: The folder.
        deep: Whether to read and encode a sample of the images again, in an actor, and compare it with its rows.
        seed: Decides on the sample.
        images, root, weights, model: Where `deep` finds these; None: where `job.json` says, if that may be followed.
        cluster: Where that actor comes from.
        reporter: Receives the progress of `deep`.

    Returns:
        The counts, and one sentence per problem.

    Raises:
        InputError: It is not the folder of a run; or, with `deep`, the images, the weights or the model are not
            available.
        RunError: With `deep`: too many actors died.
    """
    folder = open_folder(where)
    job = read_job(folder)
    given = {"images": images, "root": root, "weights": weights, "model": model}
    if job is None:
        raise InputError(
            f"{folder.url} is not the folder of an encode, predict or shrink run: name one that contains job.json."
        )
    found = Verification()
    followed = _followed(folder, job, given, reporter) if deep else job  # before the work
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            found.problems.append("The manifest is incomplete: its last part is missing.")
            return found
        _check_shards(folder, job, manifest, found)
        foreign = [f"{path} names no image of {job.images}." for path in _foreign_rows(folder, job, manifest, deep)]
    except InputError as error:  # a part of the manifest is damaged
        found.problems.append(str(error))
        return found
    found.problems += foreign
    found.problems += _foreign_files(folder, job, manifest)
    found.problems += _summary_problems(folder, found)
    if deep and not foreign:  # none of these is read
        sample = run_on_one_actor(SampleCheck(folder.url, followed, seed), cluster or ClusterConfig(), reporter)
        found.sampled = sample.images
        found.problems += sample.problems
    return found


def _followed(folder: Folder, job: Job, given: Mapping[str, Any], reporter: Reporter) -> Job:
    """Return the job with the places that it or the user names, if they may be followed."""
    places: dict[str, Any] = {
        name: follow(folder, JOB, name, getattr(job, name), given[name]) for name in ("images", "root")
    }
    reporter.message(f"photos are read from {places['images']}")
    if job.model != IMAGENET:
        places["model"] = follow(folder, JOB, "model", job.model, given["model"])
    return replace(job, weights=follow_weights(folder, JOB, job.weights, given["weights"]), **places)


def _check_shards(folder: Folder, job: Job, manifest: Manifest, found: Verification) -> None:
    for shard in manifest.shards:
        check = check_shard(folder, job, shard)
        found.images += shard.images
        found.rows += check.rows
        found.ok += check.ok
        found.failed += check.failed
        found.problems += check.problems
    if not manifest.is_complete:
        found.problems.append("The manifest's last generation is incomplete: run the same command again.")
    found.problems += [f"{path} is in the manifest more than once." for path in _repeated_paths(folder, manifest)]


def _repeated_paths(folder: Folder, manifest: Manifest) -> Iterator[str]:
    """Yield paths that are in the manifest more than once: in path order, they are neighbours."""
    last = None
    for rows in rows_in_path_order(folder, manifest):
        paths = pa.concat_arrays([pa.array([last], pa.string()), rows["path"]])
        yield from paths[1:].filter(pc.equal(paths[1:], paths[:-1])).to_pylist()
        last = paths[-1].as_py()


def _foreign_rows(folder: Folder, job: Job, manifest: Manifest, deep: bool) -> Iterator[str]:
    """Yield paths in the manifest that the images' source cannot have listed; nothing if that does not exist.

    A store is asked only where images are read from it, by `deep`.
    """
    if scheme_of(job.images) and not deep:
        return
    try:
        source = open_photos(job.images, job.root)
    except InputError:  # which `deep` reports
        return
    yield from foreign_paths(folder, manifest, source)


def _foreign_files(folder: Folder, job: Job, manifest: Manifest) -> Iterator[str]:
    expected = {shard_name(job.kind, shard.number) for shard in manifest.shards}
    for name in folder.names(job.kind):
        if not name.startswith("_") and f"{job.kind}/{name}" not in expected:
            yield f"{job.kind}/{name} belongs to no shard of the manifest."


def _summary_problems(folder: Folder, found: Verification) -> Iterator[str]:
    try:
        summary: dict[str, Any] = read_summary(folder)
    except FileNotFoundError:
        yield "There is no _SUCCESS: the run has not finished; the same command resumes it."
        return
    for name, counted in (("images", found.images), ("ok", found.ok), ("failed", found.failed)):
        if summary.get(name) != counted:
            yield f"_SUCCESS says {summary.get(name)} {name}, and {counted} were found."
