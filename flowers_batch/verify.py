"""Proof that a run's folder is whole: every image of the manifest is one row, and every count is true."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flowers_batch.config import InputError
from flowers_batch.dataset import FAILED, OK, SUCCESS, Job, read_footer, read_job, read_shard, shard_name
from flowers_batch.shards import Manifest, Shard, read_manifest, read_rows, rows_in_path_order
from flowers_batch.storage import Folder, Where, open_folder

_NAMED = 5  # paths told of each problem in a shard


@dataclass
class Verification:
    """What was found.

    Attributes:
        images: Images in the manifest.
        rows: Rows in the shards.
        ok, failed: Rows of each status.
        problems: A sentence each; none where the folder is whole.
    """

    images: int = 0
    rows: int = 0
    ok: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(where: Where) -> Verification:
    """Checks a run's folder, a shard in memory at a time.

    Raises:
        InputError: It is no run's folder.
    """
    folder = open_folder(where)
    job = read_job(folder)
    if job is None:
        raise InputError(f"{folder.url} is not the folder of an encode or predict run: there is no job.json in it.")
    found = Verification()
    manifest = read_manifest(folder)
    if manifest is None:
        found.problems.append("The manifest is not whole: its last part is missing or cannot be read.")
        return found
    for shard in manifest.shards:
        found.images += shard.images
        _check_shard(folder, job, shard, found)
    if not manifest.is_whole:
        found.problems.append("The manifest's last generation is not whole: run the same command again.")
    found.problems += [f"{path} stands in the manifest more than once." for path in _twice(folder, manifest)]
    expected = {shard_name(job.kind, shard.number) for shard in manifest.shards}
    for name in folder.names(job.kind):
        if not name.startswith("_") and f"{job.kind}/{name}" not in expected:
            found.problems.append(f"{job.kind}/{name} belongs to no shard of the manifest.")
    _check_summary(folder, found)
    return found


def _check_shard(folder: Folder, job: Job, shard: Shard, found: Verification) -> None:
    name = shard_name(job.kind, shard.number)
    footer = read_footer(folder, job.kind, shard.number)
    if footer is None:
        found.problems.append(f"{name} is missing, or is no whole shard.")
        return
    if footer.fingerprint != job.fingerprint.digest:
        found.problems.append(f"{name} has another fingerprint than {folder.url_of('job.json')}.")
    if (footer.shard, footer.inputs) != (shard.number, shard.inputs):
        found.problems.append(f"{name} was made from other images than the manifest names.")
    try:
        batches = read_shard(folder, job.kind, shard.number, ["path", "status", "reason"])
    except InputError as error:
        found.problems.append(str(error))
        return
    rows = Counter(path for batch in batches for path in batch["path"].to_pylist())
    statuses = Counter(status for batch in batches for status in batch["status"].to_pylist())
    images = Counter(read_rows(folder, shard)["path"].to_pylist())
    for problem, paths in (("lacks", images - rows), ("has unasked", rows - images)):
        if paths:
            found.problems.append(f"{name} {problem} {_some(paths)}.")
    if (footer.ok, footer.failed) != (statuses[OK], statuses[FAILED]):
        found.problems.append(
            f"{name} says {footer.ok} ok and {footer.failed} failed, and has {statuses[OK]} and {statuses[FAILED]}."
        )
    without_reason = sum(
        (status == FAILED) != (reason is not None)
        for batch in batches
        for status, reason in zip(batch["status"].to_pylist(), batch["reason"].to_pylist(), strict=True)
    )
    if without_reason:
        found.problems.append(f"{name} has {without_reason} rows whose status and reason do not fit together.")
    found.rows += rows.total()
    found.ok += statuses[OK]
    found.failed += statuses[FAILED]


def _twice(folder: Folder, manifest: Manifest) -> Iterator[str]:
    """Paths that stand in the manifest more than once: in order, they are neighbours."""
    paths = (row.image.path for row in rows_in_path_order(folder, manifest))
    return (path for path, again in itertools.pairwise(paths) if path == again)


def _check_summary(folder: Folder, found: Verification) -> None:
    try:
        summary: dict[str, Any] = folder.read_json(SUCCESS)
    except FileNotFoundError:
        found.problems.append("There is no _SUCCESS: the run has not ended; the same command goes on.")
        return
    for name, counted in (("images", found.images), ("ok", found.ok), ("failed", found.failed)):
        if summary.get(name) != counted:
            found.problems.append(f"_SUCCESS says {summary.get(name)} {name}, and {counted} were found.")


def _some(paths: Counter[str]) -> str:
    named = ", ".join(list(paths)[:_NAMED])
    return f"{paths.total()} rows, such as {named}" if paths.total() > 1 else f"a row of {named}"
