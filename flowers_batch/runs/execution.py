"""A run on a folder that it holds the lock of: plan, have the shards done, check."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from flowers_batch.cluster.driver import run_shards
from flowers_batch.cluster.messages import Factory, PoolResult, ShardJob
from flowers_batch.config import ArchiveConfig, ClusterConfig
from flowers_batch.dataset.completeness import completed
from flowers_batch.dataset.duplicates import count_duplicates
from flowers_batch.dataset.growth import grow_manifest, write_manifest
from flowers_batch.dataset.manifest import Manifest, copy_manifest, describe_source, read_manifest
from flowers_batch.dataset.manifest_part import MANIFEST
from flowers_batch.dataset.run_folder import (
    JOB,
    SUCCESS,
    Job,
    Run,
    library_versions,
    read_job,
    read_summary,
    write_job,
    write_summary,
)
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer, failed_paths, read_footer
from flowers_batch.errors import InputError, RunError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.progress import Progress, Reporter
from flowers_batch.runs.summary import Summary
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import Folder

_OLD_SCRATCH_SECONDS = 3600.0  # no writer pauses so long between two row groups
# Reasons of rows that may succeed when they are tried again; too_large under another `max_pixels`.
RETRYABLE_REASONS = ("missing", "unreadable", "timeout", "too_large")


class RunExecution:
    """A run on a folder that it holds the lock of."""

    def __init__(self, folder: Folder, job: Job, notes: Sequence[str] = ()):
        self.folder = folder
        self.job = job
        self.notes = list(notes)
        self._began = time.monotonic()
        self._id = uuid.uuid4().hex
        self._changes: dict[str, int] = {}
        self._codes: dict[int, Footer] = {}  # of the codes that are labelled, if it is codes that are

    def plan_images(self, source: Source, config: ArchiveConfig) -> Manifest:
        """Lists the images, and cuts those that are new into shards; goes on with an earlier run that was stopped."""
        manifest = read_manifest(self.folder)
        if manifest is None:
            self._refuse_foreign()
            manifest = write_manifest(self.folder, source, config.shard_size, self._id)
            self._changes["new"] = manifest.images
            return manifest
        stopped = (
            manifest.is_complete and manifest.source == describe_source(source) and not self.folder.exists(SUCCESS)
        )
        if stopped and not (config.prune or config.retry_failed):
            return manifest
        manifest, self._changes = grow_manifest(
            self.folder,
            manifest,
            source,
            config.shard_size,
            self._id,
            prune=config.prune,
            retry=config.retry_failed,
            failed=self._failed,
        )
        return manifest

    def _failed(self, shard: Shard) -> set[str]:
        """The images of a shard that failed for a reason that may have passed."""
        footer = read_footer(self.folder, self.job.kind, shard.number)
        if footer is None or not footer.reasons.keys() & set(RETRYABLE_REASONS):
            return set()
        return failed_paths(self.folder, self.job.kind, shard.number, RETRYABLE_REASONS)

    def plan_codes(self, codes: Run) -> Manifest:
        """Takes over the manifest of a codes folder, once all its shards are what that manifest says."""
        manifest, present = read_manifest(codes.folder), read_manifest(self.folder)
        if manifest:
            self._codes = completed(codes.folder, CODES, manifest, codes.job.fingerprint.digest)
        if manifest is None or len(self._codes) < len(manifest.shards):
            raise InputError(f"{codes.folder.url} is not whole any more: run the same `flowers-batch encode` again.")
        if present is None:
            self._refuse_foreign()
        elif present.runs[0] != manifest.runs[0] and present.shards != manifest.shards:
            raise InputError(
                f"{self.folder.url} holds predictions of other images than {codes.folder.url}: choose another folder."
            )
        if present is None or present.shards != manifest.shards:
            self.folder.delete(SUCCESS)
            copy_manifest(codes.folder, self.folder, manifest)
        return manifest

    def _refuse_foreign(self) -> None:
        if self.folder.exists(JOB):
            raise InputError(
                f"{self.folder.url} has a {JOB} and no whole {MANIFEST}: restore it, or choose another folder."
            )

    def work(self, manifest: Manifest, factory: Factory, cluster: ClusterConfig, reporter: Reporter) -> Summary:
        """Has all shards done that are missing, checks that none is left, and writes `_SUCCESS`."""
        for name in ("", self.job.kind, MANIFEST):
            self.folder.sweep(name, _OLD_SCRATCH_SECONDS)
        # A fingerprint whose precision is still open is that of no shard, so that none is complete.
        before = self._complete(manifest)
        missing = [shard for shard in manifest.shards if shard.number not in before]
        outcome = PoolResult()
        if missing:
            self.folder.delete(SUCCESS)
            resumed = manifest.images - sum(shard.images for shard in missing)
            archive = _ArchiveReporter(reporter, manifest.images, resumed)
            job = ShardJob(factory, self.folder.url, self.job.kind)
            outcome = run_shards(job, missing, cluster, self._on_first_fingerprint, archive)
        footers = self._complete(manifest) if missing else before
        left = [shard.number for shard in manifest.shards if shard.number not in footers]
        if left:
            raise RunError(
                f"{len(left)} of {len(manifest.shards)} shards of {self.folder.url} are missing, the first is "
                f"{left[0]}: run the same command again."
            )
        for name in ("", self.job.kind, MANIFEST):
            self.folder.sweep(name)
        self._write_job()
        if self.folder.exists(SUCCESS):  # nothing was missing, and nothing changed
            duplicates = read_summary(self.folder)["duplicates"]
            return self._summary(manifest, before, footers, outcome, duplicates)
        duplicates = count_duplicates(self.folder, self.job.kind, len(manifest.shards), manifest.images)
        summary = self._summary(manifest, before, footers, outcome, duplicates)
        write_summary(self.folder, summary.to_json())
        return summary

    def _on_first_fingerprint(self, fingerprint: Fingerprint) -> None:
        """Takes over what only an actor could tell, the precision, and writes `job.json` before the first shard."""
        expected = self.job.fingerprint
        if expected.precision == "auto":
            expected = replace(expected, precision=fingerprint.precision)
        if fingerprint != expected:
            raise InputError(
                f"The actors would make other rows than this machine expects: {fingerprint.differences(expected)}; "
                "give all nodes the same files."
            )
        self.job = replace(self.job, fingerprint=fingerprint)
        self._write_job()

    def _write_job(self) -> None:
        """Brings `job.json` up to date, if anything but the versions of libraries differs."""
        before = read_job(self.folder)
        if before is None or replace(before, versions={}) != self.job:
            write_job(self.folder, replace(self.job, versions=library_versions()))

    def _complete(self, manifest: Manifest) -> dict[int, Footer]:
        """The shards that are complete; labels of codes that were made anew since are not."""
        found = completed(self.folder, self.job.kind, manifest, self.job.fingerprint.digest)
        return {
            number: footer
            for number, footer in found.items()
            if number not in self._codes or footer.content_digest == self._codes[number].content_digest
        }

    def _summary(
        self,
        manifest: Manifest,
        before: dict[int, Footer],
        footers: dict[int, Footer],
        outcome: PoolResult,
        duplicates: int,
    ) -> Summary:
        reasons: Counter[str] = Counter()
        for footer in footers.values():
            reasons.update(footer.reasons)
        already = outcome.reused + sum(footer.ok + footer.failed for footer in before.values())
        done = manifest.images - already
        rate = done / outcome.seconds if outcome.seconds else 0.0
        shares = {name: seconds / (outcome.seconds * outcome.size) for name, seconds in outcome.stages.items()}
        rates = {name: round(rate / share, 1) if share and name != "wait" else None for name, share in shares.items()}
        return Summary(
            images=manifest.images,
            ok=sum(footer.ok for footer in footers.values()),
            failed=sum(footer.failed for footer in footers.values()),
            ignored=manifest.ignored,
            repeated=manifest.repeated,
            duplicates=duplicates,
            missing=manifest.missing,
            changes=self._changes,
            resumed=already,
            seconds=round(time.monotonic() - self._began, 3),
            images_per_second=round(rate, 3),
            stages={stage: round(seconds, 3) for stage, seconds in outcome.stages.items()},
            stage_rates=rates,
            stage_shares={stage: round(share, 4) for stage, share in shares.items()},
            reasons=dict(reasons.most_common()),
            fingerprint=self.job.fingerprint.digest,
            shards=len(manifest.shards),
            actors=outcome.actors,
            deaths=outcome.deaths,
            stalls=outcome.stalls,
            weights=self.job.weights,
            notes=self.notes,
        )


class _ArchiveReporter:
    """Reports the progress of a run's missing shards as that of its whole archive."""

    def __init__(self, reporter: Reporter, total: int, resumed: int):
        self._reporter, self._total, self._resumed = reporter, total, resumed
        self.message = reporter.message

    def update(self, progress: Progress) -> None:
        done = self._resumed + (progress.done or 0)
        self._reporter.update(replace(progress, done=done, total=self._total, resumed=self._resumed))
