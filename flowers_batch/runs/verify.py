"""Proof that a run's folder is complete: every image of the manifest is one row, and every count is true."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.dataset.manifest import MISSING, Manifest, Shard, read_manifest, read_rows, rows_in_path_order
from flowers_batch.dataset.run_folder import Job, read_job, read_summary
from flowers_batch.dataset.schema import CODES, FAILED, IMAGE_COLUMNS, OK, PREDICTIONS, codes_schema, predictions_schema
from flowers_batch.dataset.shard_file import content_digest_of, read_footer, read_shard, shard_name
from flowers_batch.errors import InputError
from flowers_batch.runs.reproduction import factory_of
from flowers_batch.storage.folder import Folder, PathOrUrl, open_folder

_NAMED = 5  # paths told of each problem in a shard
_RESULT = {CODES: "code", PREDICTIONS: "prediction"}  # what an image that is ok has
_SAMPLE = 100  # images that are encoded again
_UNTOUCHED = ("too_large", "crashed_decoder", "timeout")  # it would be dangerous, or need the run's own limits
# Relative L2 of a code and difference of a probability that other hardware may cause: bfloat16 errs by 0.008.
_CODE_TOLERANCE, _LABEL_TOLERANCE = 0.02, 0.02


@dataclass
class Verification:
    """What was found.

    Attributes:
        images: Images in the manifest.
        rows: Rows in the shards.
        ok, failed: Rows of each status.
        sampled: Images that were read and encoded again.
        problems: A sentence each; none where the folder is whole.
    """

    images: int = 0
    rows: int = 0
    ok: int = 0
    failed: int = 0
    sampled: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(where: PathOrUrl, *, deep: bool = False, seed: int = 0) -> Verification:
    """Checks a run's folder, a shard in memory at a time.

    Args:
        where: The folder.
        deep: Whether a sample of the images is read and encoded again, and compared with its rows.
        seed: Decides on the sample.

    Raises:
        InputError: It is no run's folder, or the images, the weights or the model are not to be had for `deep`.
    """
    folder = open_folder(where)
    job = read_job(folder)
    if job is None:
        raise InputError(f"{folder.url} is not the folder of an encode or predict run: there is no job.json in it.")
    found = Verification()
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            found.problems.append("The manifest is not whole: its last part is missing.")
            return found
        for shard in manifest.shards:
            found.images += shard.images
            _check_shard(folder, job, shard, found)
        if not manifest.is_complete:
            found.problems.append("The manifest's last generation is not whole: run the same command again.")
        found.problems += [f"{path} stands in the manifest more than once." for path in _twice(folder, manifest)]
    except InputError as error:  # a part of the manifest is damaged
        found.problems.append(str(error))
        return found
    expected = {shard_name(job.kind, shard.number) for shard in manifest.shards}
    for name in folder.names(job.kind):
        if not name.startswith("_") and f"{job.kind}/{name}" not in expected:
            found.problems.append(f"{job.kind}/{name} belongs to no shard of the manifest.")
    _check_summary(folder, found)
    if deep:
        _check_sample(folder, job, manifest, seed, found)
    return found


def _check_shard(folder: Folder, job: Job, shard: Shard, found: Verification) -> None:
    name = shard_name(job.kind, shard.number)
    footer = read_footer(folder, job.kind, shard.number)
    if footer is None:
        found.problems.append(f"{name} is missing, or is no whole shard.")
        return
    if footer.fingerprint != job.fingerprint.digest:
        found.problems.append(f"{name} has another fingerprint than {folder.url_of('job.json')}.")
    if (footer.shard, footer.inputs_digest) != (shard.number, shard.inputs_digest):
        found.problems.append(f"{name} was made from other images than the manifest names.")
    try:
        batches = list(read_shard(folder, job.kind, shard.number))  # all of it: each page has a checksum
    except InputError as error:
        found.problems.append(str(error))
        return
    if not all(_is_schema(batch.schema, job) for batch in batches):
        found.problems.append(f"{name} has other columns than a shard of {job.kind}.")
        return
    table = (
        pa.Table.from_batches(batches, batches[0].schema)
        if batches
        else pa.table({name: [] for name in (*IMAGE_COLUMNS, _RESULT[job.kind])})
    )
    paths_there, paths_named = table["path"].to_pylist(), read_rows(folder, shard)["path"].to_pylist()
    rows, images = Counter(paths_there), Counter(paths_named)
    statuses = Counter(table["status"].to_pylist())
    if rows == images and paths_there != paths_named:
        found.problems.append(f"{name} has its rows in another order than the manifest.")
    if content_digest_of(table) != footer.content_digest:
        found.problems.append(f"{name} says that its images have other bytes than its rows do.")
    for problem, paths in (("lacks", images - rows), ("has unasked", rows - images)):
        if paths:
            found.problems.append(f"{name} {problem} {_some(paths)}.")
    if (footer.ok, footer.failed) != (statuses[OK], statuses[FAILED]):
        found.problems.append(
            f"{name} says {footer.ok} ok and {footer.failed} failed, and has {statuses[OK]} and {statuses[FAILED]}."
        )
    is_ok = pc.equal(table["status"], OK)
    for column, expected in (("reason", pc.invert(is_ok)), (_RESULT[job.kind], is_ok)):
        wrong = pc.sum(pc.not_equal(pc.is_valid(table[column]), expected)).as_py()
        if wrong:
            found.problems.append(f"{name} has {wrong} rows whose status and {column} do not fit together.")
    found.rows += rows.total()
    found.ok += statuses[OK]
    found.failed += statuses[FAILED]


def _is_schema(schema: pa.Schema, job: Job) -> bool:
    if job.kind == PREDICTIONS:
        return schema.equals(predictions_schema())
    width = getattr(schema.types[-1], "list_size", 1)
    return schema.equals(codes_schema(width, job.fingerprint.code_dtype))


def _check_sample(folder: Folder, job: Job, manifest: Manifest, seed: int, found: Verification) -> None:
    """Makes a sample of the rows again from their images; those that vanished are passed over."""
    starts = np.cumsum([0, *(shard.images for shard in manifest.shards)])
    size = min(_SAMPLE, manifest.images)
    sample = np.sort(np.random.default_rng(seed).choice(manifest.images, size, replace=False))
    worker = factory_of(job)(os.cpu_count() or 1, False)
    if worker.fingerprint != job.fingerprint:
        raise InputError(
            f"The rows cannot be made again, since what made them has changed: "
            f"{worker.fingerprint.differences(job.fingerprint)}."
        )
    for shard, start, stop in zip(manifest.shards, starts[:-1], starts[1:], strict=True):
        chosen = sample[(sample >= start) & (sample < stop)] - start
        if not len(chosen) or read_footer(folder, job.kind, shard.number) is None:
            continue
        rows = read_rows(folder, shard).take(chosen)
        rows = rows.filter(pc.not_equal(rows["action"], MISSING))
        try:
            stored = pa.Table.from_batches(read_shard(folder, job.kind, shard.number), worker.schema)
        except (InputError, pa.ArrowInvalid):  # told already
            continue
        stored = stored.filter(pc.is_in(stored["path"], rows["path"]))
        stored = stored.filter(pc.invert(pc.is_in(stored["reason"], pa.array(_UNTOUCHED))))
        before = {row["path"]: row for row in stored.to_pylist()}
        rows = rows.filter(pc.is_in(rows["path"], stored["path"]))
        for batch in worker.batches(shard.number, rows, {}):
            found.sampled += len(batch)
            for row in batch.to_pylist():
                if difference := _difference(before[row["path"]], row):
                    found.problems.append(f"{row['path']} {difference}.")


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What makes a row another than the one that its image gives now, as words; empty where nothing does."""
    if before["sha256"] != now["sha256"]:
        return "has other bytes now than when its row was made: run the same command again"
    if before["reason"] != now["reason"]:
        return f"fails with {now['reason']} now, and with {before['reason']} in its row"
    if now["status"] == FAILED:
        return ""
    if "code" in now:
        old, new = (np.array(row["code"], np.float32) for row in (before, now))
        error = np.linalg.norm(old - new) / (np.linalg.norm(new) or 1.0)
        return f"has another code in its row than now (relative L2 {error:.2g})" if error > _CODE_TOLERANCE else ""
    was, is_now = (dict(zip(row["top_labels"], row["top_probabilities"], strict=True)) for row in (before, now))
    moved = max((abs(was[label] - is_now[label]) for label in was.keys() & is_now.keys()), default=1.0)
    if moved <= _LABEL_TOLERANCE:
        return ""
    return f"is {now['prediction']} ({now['probability']:.0%} sure) now, and {before['prediction']} in its row"


def _twice(folder: Folder, manifest: Manifest) -> Iterator[str]:
    """Paths that stand in the manifest more than once: in order, they are neighbours."""
    last = None
    for rows in rows_in_path_order(folder, manifest):
        paths = pa.concat_arrays([pa.array([last], pa.string()), rows["path"]])
        yield from paths[1:].filter(pc.equal(paths[1:], paths[:-1])).to_pylist()
        last = paths[-1].as_py()


def _check_summary(folder: Folder, found: Verification) -> None:
    try:
        summary: dict[str, Any] = read_summary(folder)
    except FileNotFoundError:
        found.problems.append("There is no _SUCCESS: the run has not ended; the same command goes on.")
        return
    for name, counted in (("images", found.images), ("ok", found.ok), ("failed", found.failed)):
        if summary.get(name) != counted:
            found.problems.append(f"_SUCCESS says {summary.get(name)} {name}, and {counted} were found.")


def _some(paths: Counter[str]) -> str:
    named = ", ".join(list(paths)[:_NAMED])
    return f"{paths.total()} rows, such as {named}" if paths.total() > 1 else f"a row of {named}"
