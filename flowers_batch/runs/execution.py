"""The execution of a run: plan the shards, have actors process those that are missing, check the result."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from flowers_batch.cluster.driver import run_shards
from flowers_batch.cluster.messages import Factory, PoolResult, ShardJob
from flowers_batch.config import ArchiveConfig, ClusterConfig
from flowers_batch.dataset.completeness import completed
from flowers_batch.dataset.duplicates import count_duplicates
from flowers_batch.dataset.job import Job, library_versions, read_job, write_job
from flowers_batch.dataset.manifest import Manifest
from flowers_batch.dataset.manifest_part import MANIFEST
from flowers_batch.dataset.run_folder import SUCCESS, Run, read_summary, write_summary
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.errors import InputError, RunError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.progress import Progress, Reporter
from flowers_batch.runs.failed_share import FailedShare
from flowers_batch.runs.planning import plan_codes, plan_images
from flowers_batch.runs.summary import Summary
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.scratch import sweep_scratch_folders

_OLD_SCRATCH_SECONDS = 3600.0  # longer than any writer pauses between two row groups


class RunExecution:
    """One execution of a run, while its folder is locked.

    Attributes:
        folder: The run's folder.
        job: What `job.json` says, or will say.
        notes: What a person should know about the rows.
    """

    def __init__(self, folder: Folder, job: Job, notes: Sequence[str] = ()):
        self.folder = folder
        self.job = job
        self.notes = list(notes)
        self._began = time.monotonic()
        self._changes: dict[str, int] = {}
        self._codes: dict[int, Footer] = {}  # of the codes that are labelled, if codes are
        self._max_failed_share = 1.0  # of codes, whose failed rows were accepted when they were made

    def plan_images(self, source: Source, config: ArchiveConfig) -> Manifest:
        """List the images, and return the manifest.

        Raises:
            InputError: The folder belongs to other images.
        """
        self._max_failed_share = config.max_failed_share
        manifest, self._changes = plan_images(self.folder, self.job.kind, source, config)
        return manifest

    def plan_codes(self, codes: Run) -> Manifest:
        """Copy the manifest of a codes folder, and return it.

        Raises:
            InputError: The codes are incomplete, or this folder belongs to other images.
        """
        manifest, self._codes = plan_codes(self.folder, codes)
        return manifest

    def execute(self, manifest: Manifest, factory: Factory, cluster: ClusterConfig, reporter: Reporter) -> Summary:
        """Have actors process the missing shards, check that all are complete, and write and return the summary.

        Raises:
            RunError: Shards are missing, or a larger share of the images failed than may.
        """
        self._sweep(_OLD_SCRATCH_SECONDS)
        # While the fingerprint's precision is `auto`, no shard matches it.
        before = self._complete_shards(manifest)
        missing = [shard for shard in manifest.shards if shard.number not in before]
        if missing:
            result = self._run_missing(manifest, missing, before, factory, cluster, reporter)
            footers = self._complete_shards(manifest)
        else:
            result, footers = PoolResult(), before
        self._check_complete(manifest, footers)
        self._sweep()
        self._write_job()
        if self.folder.exists(SUCCESS):  # nothing was missing, and nothing changed
            written = read_summary(self.folder)
            listed = manifest.listing.counts_to_json()
            if written | listed != written:  # but what was left out
                write_summary(self.folder, written | listed)
            return self._summary(manifest, before, footers, result, written["duplicates"])
        self._check_failed_share(manifest, footers)
        duplicates = count_duplicates(self.folder, self.job.kind, manifest, self.job.fingerprint.digest)
        summary = self._summary(manifest, before, footers, result, duplicates)
        write_summary(self.folder, summary.to_json())
        return summary

    def _sweep(self, older_than: float = 0.0) -> None:
        """Delete scratch files that writers left which were killed."""
        sweep_scratch_folders()
        for name in ("", self.job.kind, MANIFEST):
            self.folder.sweep(name, older_than)

    def _run_missing(
        self,
        manifest: Manifest,
        missing: list[Shard],
        before: dict[int, Footer],
        factory: Factory,
        cluster: ClusterConfig,
        reporter: Reporter,
    ) -> PoolResult:
        self.folder.delete(SUCCESS)
        failed_share = self._check_failed_share(manifest, before)
        resumed = manifest.images - sum(shard.images for shard in missing)
        archive = _ArchiveReporter(reporter, manifest.images, resumed)
        job = ShardJob(factory, self.folder.url, self.job.kind)
        return run_shards(
            job, missing, cluster, self._on_first_fingerprint, archive, on_shard_finished=failed_share.add
        )

    def _check_failed_share(self, manifest: Manifest, finished: dict[int, Footer]) -> FailedShare:
        """Check the finished shards, and return what counts further ones.

        Raises:
            RunError: More of their images failed than may of all.
        """
        share = FailedShare(self.folder, self.job.kind, manifest, self._max_failed_share, finished.values())
        share.check()
        return share

    def _check_complete(self, manifest: Manifest, footers: dict[int, Footer]) -> None:
        missing = [shard.number for shard in manifest.shards if shard.number not in footers]
        if missing:
            raise RunError(
                f"{len(missing)} of {len(manifest.shards)} shards of {self.folder.url} are missing, the first is "
                f"{missing[0]}: run the same command again."
            )

    def _on_first_fingerprint(self, fingerprint: Fingerprint) -> None:
        """Adopt the precision and the decode mode, which only an actor knows, and write `job.json`.

        That is done before the first shard.

        Raises:
            InputError: The actors' fingerprint differs from the driver's.
        """
        expected = self.job.fingerprint
        if expected.precision == "auto":
            expected = expected.with_precision(fingerprint.precision)
        if expected.decode == "auto":
            expected = replace(expected, decode=fingerprint.decode)
        if fingerprint != expected:
            raise InputError(
                f"The actors' fingerprint differs from the driver's ({fingerprint.differences(expected)}): install "
                "the same packages and weights on all nodes."
            )
        self.job = replace(self.job, fingerprint=fingerprint)
        self._write_job()

    def _write_job(self) -> None:
        """Update `job.json` if anything but the versions of libraries differs."""
        before = read_job(self.folder)
        if before is None or replace(before, versions={}) != self.job:
            write_job(self.folder, replace(self.job, versions=library_versions()))

    def _complete_shards(self, manifest: Manifest) -> dict[int, Footer]:
        """Return the footers of complete shards; labels of codes that have changed since are not complete."""
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
        result: PoolResult,
        duplicates: int,
    ) -> Summary:
        reasons: Counter[str] = Counter()
        for footer in footers.values():
            reasons.update(footer.reasons)
        already = result.reused + sum(footer.ok + footer.failed for footer in before.values())
        done = manifest.images - already
        rate = done / result.seconds if result.seconds else 0.0
        shares = {name: seconds / (result.seconds * result.mean_actors) for name, seconds in result.stages.items()}
        rates = {name: round(rate / share, 1) if share and name != "wait" else None for name, share in shares.items()}
        return Summary(
            images=manifest.images,
            ok=sum(footer.ok for footer in footers.values()),
            failed=sum(footer.failed for footer in footers.values()),
            **manifest.listing.counts_to_json(),
            duplicates=duplicates,
            missing=manifest.missing,
            changes=self._changes,
            resumed=already,
            seconds=round(time.monotonic() - self._began, 3),
            images_per_second=round(rate, 3),
            stages={stage: round(seconds, 3) for stage, seconds in result.stages.items()},
            stage_rates=rates,
            stage_shares={stage: round(share, 4) for stage, share in shares.items()},
            reasons=dict(reasons.most_common()),
            fingerprint=self.job.fingerprint.digest,
            shards=len(manifest.shards),
            actors=result.actors,
            deaths=result.deaths,
            stalls=result.stalls,
            weights=self.job.weights,
            notes=self.notes,
        )


class _ArchiveReporter:
    """Reports progress on the missing shards as progress on all images of the run."""

    def __init__(self, reporter: Reporter, total: int, resumed: int):
        self._reporter, self._total, self._resumed = reporter, total, resumed
        self.message = reporter.message

    def update(self, progress: Progress) -> None:
        done = self._resumed + (progress.done or 0)
        self._reporter.update(replace(progress, done=done, total=self._total, resumed=self._resumed))
