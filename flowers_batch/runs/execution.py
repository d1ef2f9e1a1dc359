"""The execution of a run: plan the shards, have actors process those that are missing, check the result."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from flowers_batch.cluster.driver import run_shards
from flowers_batch.cluster.messages import Factory, PoolResult, ShardJob
from flowers_batch.config import ArchiveConfig, ClusterConfig
from flowers_batch.dataset.completeness import completed
from flowers_batch.dataset.duplicates import count_duplicates
from flowers_batch.dataset.foreign_rows import foreign_paths
from flowers_batch.dataset.growth import grow_manifest, write_manifest
from flowers_batch.dataset.job import JOB, Job, library_versions, read_job, write_job
from flowers_batch.dataset.manifest import Manifest, copy_manifest, read_manifest
from flowers_batch.dataset.manifest_part import MANIFEST
from flowers_batch.dataset.run_folder import SUCCESS, Run, read_summary, write_summary
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer, read_footer
from flowers_batch.dataset.shard_reading import failed_paths
from flowers_batch.errors import InputError, RunError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.progress import Progress, Reporter
from flowers_batch.runs.summary import Summary
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.skipping import Skipping
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.scratch import sweep_scratch_folders

_OLD_SCRATCH_SECONDS = 3600.0  # longer than any writer pauses between two row groups
# Reasons of failed rows that may succeed in a retry; too_large with another `max_pixels`.
RETRYABLE_REASONS = ("missing", "unreadable", "timeout", "too_large")
# Those that another version of the decoders may not meet.
DECODING_REASONS = ("not_an_image", "truncated", "unsupported")


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
        self._id = uuid.uuid4().hex
        self._changes: dict[str, int] = {}
        self._codes: dict[int, Footer] = {}  # of the codes that are labelled, if codes are

    def plan_images(self, source: Source, config: ArchiveConfig) -> Manifest:
        """List the images, divide the new ones into shards, and return the manifest.

        An earlier execution that was stopped is resumed with the manifest that it wrote, unless the images are now
        elsewhere, or other names are left out.

        Raises:
            InputError: The folder belongs to other images.
        """
        manifest = read_manifest(self.folder)
        if manifest is None:
            self._refuse_foreign()
            manifest = write_manifest(self.folder, source, config.shard_size, self._id)
            self._changes["new"] = manifest.images
            return manifest
        stopped = (
            manifest.is_complete and manifest.listing.would_find_the_same(source) and not self.folder.exists(SUCCESS)
        )
        retry = config.retry_failed or config.retry_all
        if stopped and not (config.prune or retry) and self._is_safe_to_read(manifest, source):
            return manifest
        manifest, self._changes = grow_manifest(
            self.folder,
            manifest,
            source,
            config.shard_size,
            self._id,
            prune=config.prune,
            retry=retry,
            failed=partial(self._failed, reasons=RETRYABLE_REASONS + (DECODING_REASONS if config.retry_all else ())),
        )
        return manifest

    def _is_safe_to_read(self, manifest: Manifest, source: Source) -> bool:
        """Return whether no row names a file that a list does not; other sources refuse such rows themselves."""
        return not isinstance(source, ListSource) or next(foreign_paths(self.folder, manifest, source), None) is None

    def _failed(self, shard: Shard, reasons: Sequence[str]) -> set[str]:
        """Return the paths of a shard's images that failed for one of some reasons."""
        footer = read_footer(self.folder, self.job.kind, shard.number)
        if footer is None or footer.shard != shard.number or not footer.reasons.keys() & set(reasons):
            return set()
        return failed_paths(self.folder, self.job.kind, footer, reasons)

    def plan_codes(self, codes: Run) -> Manifest:
        """Copy the manifest of a codes folder, and return it.

        Raises:
            InputError: The codes are incomplete, or this folder belongs to other images.
        """
        manifest, present = read_manifest(codes.folder), read_manifest(self.folder)
        if manifest:
            self._codes = completed(codes.folder, CODES, manifest, codes.job.fingerprint.digest)
        if manifest is None or len(self._codes) < len(manifest.shards):
            raise InputError(f"{codes.folder.url} is no longer complete: run the same `flowers-batch encode` again.")
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
                f"{self.folder.url} has a {JOB} and no complete {MANIFEST}: restore it, or choose another folder."
            )

    def execute(self, manifest: Manifest, factory: Factory, cluster: ClusterConfig, reporter: Reporter) -> Summary:
        """Have actors process the missing shards, check that all are complete, and write and return the summary.

        Raises:
            RunError: Shards are missing.
        """
        self._sweep(_OLD_SCRATCH_SECONDS)
        # While the fingerprint's precision is `auto`, no shard matches it.
        before = self._complete_shards(manifest)
        missing = [shard for shard in manifest.shards if shard.number not in before]
        if missing:
            result = self._run_missing(manifest, missing, factory, cluster, reporter)
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
        self, manifest: Manifest, missing: list[Shard], factory: Factory, cluster: ClusterConfig, reporter: Reporter
    ) -> PoolResult:
        self.folder.delete(SUCCESS)
        resumed = manifest.images - sum(shard.images for shard in missing)
        archive = _ArchiveReporter(reporter, manifest.images, resumed)
        job = ShardJob(factory, self.folder.url, self.job.kind)
        return run_shards(job, missing, cluster, self._on_first_fingerprint, archive)

    def _check_complete(self, manifest: Manifest, footers: dict[int, Footer]) -> None:
        missing = [shard.number for shard in manifest.shards if shard.number not in footers]
        if missing:
            raise RunError(
                f"{len(missing)} of {len(manifest.shards)} shards of {self.folder.url} are missing, the first is "
                f"{missing[0]}: run the same command again."
            )

    def _on_first_fingerprint(self, fingerprint: Fingerprint) -> None:
        """Adopt the precision, which only an actor knows, and write `job.json` before the first shard.

        Raises:
            InputError: The actors' fingerprint differs from the driver's.
        """
        expected = self.job.fingerprint
        if expected.precision == "auto":
            expected = replace(expected, precision=fingerprint.precision)
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


def skipping_of(config: ArchiveConfig) -> Skipping:
    """Return which names a listing leaves out."""
    return Skipping(config.include_hidden, config.exclude)


class _ArchiveReporter:
    """Reports progress on the missing shards as progress on all images of the run."""

    def __init__(self, reporter: Reporter, total: int, resumed: int):
        self._reporter, self._total, self._resumed = reporter, total, resumed
        self.message = reporter.message

    def update(self, progress: Progress) -> None:
        done = self._resumed + (progress.done or 0)
        self._reporter.update(replace(progress, done=done, total=self._total, resumed=self._resumed))
