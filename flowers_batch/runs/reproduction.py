"""Making a run's rows again from its images."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import count

from flowers_batch.classifier.model_folder import load_model
from flowers_batch.cluster.messages import Factory
from flowers_batch.config import IMAGENET, EncodeConfig, PredictConfig, ShrinkConfig
from flowers_batch.dataset.job import Job
from flowers_batch.dataset.photo_sources import open_photos
from flowers_batch.dataset.schema import PIXELS
from flowers_batch.encoding.factories import EncoderFactory
from flowers_batch.encoding.shrinking import ShrinkFactory
from flowers_batch.encoding.worker import Worker
from flowers_batch.errors import InputError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.progress import Progress, Reporter
from flowers_batch.runs.imagenet_model import imagenet_model


def worker_of(job: Job, threads: int, gpus: int, reporter: Reporter) -> Worker:
    """Return a worker that makes a run's rows again: in an actor, since it changes settings of its process.

    Args:
        job: The run's job, with the places where its images, weights and model are.
        threads, gpus: As for `cluster.single_actor.ResumableJob`.
        reporter: Receives progress.

    Raises:
        InputError: The images, the weights or the model are not available, or have changed.
    """
    steps = count(1)
    worker = _factory_of(job)(
        threads, gpus > 0, lambda: reporter.update(Progress(f"loading the network's weights, step {next(steps)}"))
    )
    if worker.fingerprint != job.fingerprint:
        raise InputError(
            f"The rows cannot be computed again, since what they depend on has changed: "
            f"{worker.fingerprint.differences(job.fingerprint)}; restore the weights, the model and the packages."
        )
    return worker


def _factory_of(job: Job) -> Factory:
    """Return the factory of a worker that makes a run's rows again, without a limit on an image's pixels.

    Raises:
        InputError: The images or the model are not available.
    """
    source = open_photos(job.images, job.root)
    if job.kind == PIXELS:
        has_thumbnails = job.fingerprint.thumbnail_edge is not None
        shrinking = ShrinkConfig(decode=job.fingerprint.decode, thumbnails=has_thumbnails, max_pixels=sys.maxsize)
        return ShrinkFactory(shrinking, source)
    config = PredictConfig(max_pixels=sys.maxsize)
    factory = EncoderFactory(encode_config_for(job.fingerprint, job.weights, config), source)
    if job.model is None:
        return factory
    if job.model == IMAGENET:
        head = imagenet_model(PredictConfig(weights=job.weights), job, []).head
    else:
        head = load_model(job.model).head
    return replace(factory, head=head, top_k=job.fingerprint.top_k)


def encode_config_for(made: Fingerprint, weights: str, config: PredictConfig) -> EncodeConfig:
    """Return the settings that make codes with a given fingerprint.

    Args:
        made: The fingerprint.
        weights: The weights' name.
        config: Its batch size and its limit of pixels are kept.
    """
    return EncodeConfig(weights=weights, batch_size=config.batch_size, max_pixels=config.max_pixels, **made.encoding)
