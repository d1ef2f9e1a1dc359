"""Shrink: from images to the pixels that a network sees, for archives that are encoded again and again."""

from __future__ import annotations

from flowers_batch.config import ShrinkConfig
from flowers_batch.dataset.job import Job, read_job
from flowers_batch.dataset.schema import PIXELS
from flowers_batch.encoding.shrinking import ShrinkFactory, shrunk_fingerprint
from flowers_batch.errors import InputError
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.runs.execution import RunExecution
from flowers_batch.runs.planning import skipping_of
from flowers_batch.runs.summary import Summary
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.opening import PathOrUrl, open_folder


def shrink(
    images: PathOrUrl, out: PathOrUrl, config: ShrinkConfig | None = None, *, reporter: Reporter = NULL_REPORTER
) -> Summary:
    """Decode each image once, and keep the pixels that a network sees of it, 150 kB.

    The folder then takes the place of the photos: `encode`, `predict`, `finetune`, `review` and others read it many
    times as fast as photos. Calling this again does only what is missing: nothing, if the run is complete.

    Args:
        images: As for `encode`, but for a folder of shrunk photos.
        out: The run's folder: it gets `pixels/`, `manifest/`, `job.json` and `_SUCCESS`.
        config: How; the defaults are those of the command.
        reporter: Receives messages and progress.

    Returns:
        The summary, as `_SUCCESS` has it.

    Raises:
        InputError: The images or the folder cannot be used.
        RunError: The run failed; the same call resumes it.
    """
    config = config or ShrinkConfig()
    source, folder = open_source(images, config.root, skipping_of(config)), open_folder(out)
    with folder.locked():
        before = read_job(folder)
        if before and before.kind != PIXELS:
            raise InputError(f"{folder.url} holds {before.kind}: shrink into another folder.")
        made = shrunk_fingerprint(config)
        run = RunExecution(folder, Job(PIXELS, source.url, made, made.weights, source.root))
        if before and before.fingerprint != made:
            raise InputError(
                f"{folder.url} holds pixels of another kind: {made.differences(before.fingerprint)}; shrink into "
                "another folder, or with the same settings."
            )
        manifest = run.plan_images(source, config)
        return run.execute(manifest, ShrinkFactory(config, source), config.cluster, reporter)
