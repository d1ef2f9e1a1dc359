"""Encode: from images to codes, resuming where an earlier run stopped."""

from __future__ import annotations

from dataclasses import replace

from flowers_batch.config import EncodeConfig
from flowers_batch.dataset.job import Job, read_job
from flowers_batch.dataset.photo_sources import open_photos
from flowers_batch.dataset.schema import CODES
from flowers_batch.encoding.factories import EncoderFactory
from flowers_batch.encoding.networks import (
    check_decoding,
    check_layer,
    codes_fingerprint,
    fingerprint_over,
    tunings_of,
    weights_identity,
)
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.runs.execution import RunExecution
from flowers_batch.runs.planning import skipping_of
from flowers_batch.runs.summary import Summary
from flowers_batch.storage.opening import PathOrUrl, open_folder


def encode(
    images: PathOrUrl, out: PathOrUrl, config: EncodeConfig | None = None, *, reporter: Reporter = NULL_REPORTER
) -> Summary:
    """Turn each image into a row with its code.

    Calling it again does only what is missing: nothing, if the run is complete.

    Args:
        images: A folder, lists, tars or tables: a path, or a URL of `pyarrow.fs`; or a folder of shrunk photos. See
            `dataset.photo_sources.open_photos`.
        out: The run's folder: it gets `codes/`, `manifest/`, `job.json` and `_SUCCESS`.
        config: How; the defaults are those of the command.
        reporter: Receives messages and progress.

    Returns:
        The summary, as `_SUCCESS` has it.

    Raises:
        InputError: The images, the weights or the folder cannot be used.
        RunError: The run failed; the same call resumes it.
    """
    config = config or EncodeConfig()
    source, folder = open_photos(images, config.root, skipping_of(config)), open_folder(out)
    check_decoding(source, config)
    check_layer(config)
    weights, name = weights_identity(config)
    with folder.locked():
        job = read_job(folder)
        if job and job.kind != CODES:
            raise InputError(f"{folder.url} holds {job.kind}: encode into another folder.")
        if job and config.precision == "auto":
            config = replace(config, precision=job.fingerprint.precision)
        if job and config.decode == "auto":
            config = replace(config, decode=job.fingerprint.decode)
        config = replace(config, weights=name)
        fingerprint = fingerprint_over(source, codes_fingerprint(config, weights, config.precision))
        described = Job(CODES, source.url, fingerprint, name, source.root, tuned_on=tunings_of(config))
        run = RunExecution(folder, described)
        if job and job.fingerprint != run.job.fingerprint:
            raise InputError(
                f"{folder.url} holds codes of another kind: {run.job.fingerprint.differences(job.fingerprint)}; "
                "encode into another folder, or with the same settings."
            )
        manifest = run.plan_images(source, config)
        return run.execute(manifest, EncoderFactory(config, source), config.cluster, reporter)
