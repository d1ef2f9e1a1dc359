"""Planning a run: which images it has, and in which shards they are."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial

from flowers_batch.config import ArchiveConfig
from flowers_batch.dataset.completeness import completed
from flowers_batch.dataset.foreign_rows import foreign_paths
from flowers_batch.dataset.growth import grow_manifest, write_manifest
from flowers_batch.dataset.job import JOB
from flowers_batch.dataset.manifest import Manifest, copy_manifest, read_manifest
from flowers_batch.dataset.manifest_part import MANIFEST
from flowers_batch.dataset.run_folder import SUCCESS, Run
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer, read_footer
from flowers_batch.dataset.shard_reading import failed_paths
from flowers_batch.errors import InputError
from flowers_batch.sources.lists import ListSource
from flowers_batch.sources.skipping import Skipping
from flowers_batch.sources.source import Source
from flowers_batch.storage.folder import Folder

# Reasons of failed rows that may succeed in a retry; too_large with another `max_pixels`.
RETRYABLE_REASONS = ("missing", "unreadable", "timeout", "too_large")
# Those that another version of the decoders may not meet.
DECODING_REASONS = ("not_an_image", "truncated", "unsupported")


def plan_images(folder: Folder, kind: str, source: Source, config: ArchiveConfig) -> tuple[Manifest, dict[str, int]]:
    """List the images, divide the new ones into shards, and write the manifest.

    An earlier execution that was stopped is resumed with the manifest that it wrote, unless the images are now
    elsewhere, or other names are left out.

    Args:
        folder: The run's folder.
        kind: `CODES` or `PREDICTIONS`.
        source: Lists the images.
        config: How.

    Returns:
        The manifest, and what the listing changed: see `Summary.changes`.

    Raises:
        InputError: The folder belongs to other images.
    """
    manifest, run = read_manifest(folder), uuid.uuid4().hex
    if manifest is None:
        _refuse_foreign(folder)
        manifest = write_manifest(folder, source, config.shard_size, run)
        return manifest, {"new": manifest.images}
    stopped = manifest.is_complete and manifest.listing.would_find_the_same(source) and not folder.exists(SUCCESS)
    retry = config.retry_failed or config.retry_all
    if stopped and not (config.prune or retry) and _is_safe_to_read(folder, manifest, source):
        return manifest, {}
    reasons = RETRYABLE_REASONS + (DECODING_REASONS if config.retry_all else ())
    return grow_manifest(
        folder,
        manifest,
        source,
        config.shard_size,
        run,
        prune=config.prune,
        retry=retry,
        failed=partial(_failed, folder, kind, reasons),
    )


def _is_safe_to_read(folder: Folder, manifest: Manifest, source: Source) -> bool:
    """Return whether no row names a file that a list does not; other sources refuse such rows themselves."""
    return not isinstance(source, ListSource) or next(foreign_paths(folder, manifest, source), None) is None


def _failed(folder: Folder, kind: str, reasons: Sequence[str], shard: Shard) -> set[str]:
    """Return the paths of a shard's images that failed for one of some reasons."""
    footer = read_footer(folder, kind, shard.number)
    if footer is None or footer.shard != shard.number or not footer.reasons.keys() & set(reasons):
        return set()
    return failed_paths(folder, kind, footer, reasons)


def plan_codes(folder: Folder, codes: Run) -> tuple[Manifest, dict[int, Footer]]:
    """Copy the manifest of a codes folder.

    Args:
        folder: The run's folder.
        codes: The codes that are to be labelled.

    Returns:
        The manifest, and the footers of the codes' shards by their numbers.

    Raises:
        InputError: The codes are incomplete, or the run's folder belongs to other images.
    """
    manifest, present = read_manifest(codes.folder), read_manifest(folder)
    footers = completed(codes.folder, CODES, manifest, codes.job.fingerprint.digest) if manifest else {}
    if manifest is None or len(footers) < len(manifest.shards):
        raise InputError(f"{codes.folder.url} is no longer complete: run the same `flowers-batch encode` again.")
    if present is None:
        _refuse_foreign(folder)
    elif present.runs[0] != manifest.runs[0] and present.shards != manifest.shards:
        raise InputError(
            f"{folder.url} holds predictions of other images than {codes.folder.url}: choose another folder."
        )
    if present is None or present.shards != manifest.shards:
        folder.delete(SUCCESS)
        copy_manifest(codes.folder, folder, manifest)
    return manifest, footers


def _refuse_foreign(folder: Folder) -> None:
    if folder.exists(JOB):
        raise InputError(f"{folder.url} has a {JOB} and no complete {MANIFEST}: restore it, or choose another folder.")


def skipping_of(config: ArchiveConfig) -> Skipping:
    """Return which names a listing leaves out."""
    return Skipping(config.include_hidden, config.exclude)
