"""Predict: from images, or codes, to labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flowers_batch.classifier.model_folder import MODEL, Model, load_model
from flowers_batch.cluster.messages import Factory
from flowers_batch.config import IMAGENET, ArchiveConfig, PredictConfig
from flowers_batch.dataset.following import follow_weights
from flowers_batch.dataset.job import Job, read_job
from flowers_batch.dataset.manifest import Manifest
from flowers_batch.dataset.photo_sources import holds_pixels, open_photos
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.dataset.spreadsheet import write_csv
from flowers_batch.encoding.factories import EncoderFactory, LabellerFactory
from flowers_batch.encoding.networks import fingerprint_over, weights_identity
from flowers_batch.errors import InputError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.runs.execution import RunExecution
from flowers_batch.runs.imagenet_model import imagenet_model
from flowers_batch.runs.planning import skipping_of
from flowers_batch.runs.reproduction import encode_config_for
from flowers_batch.runs.summary import Summary
from flowers_batch.storage.opening import PathOrUrl, open_folder, split_file


def predict(
    source: PathOrUrl,
    out: PathOrUrl,
    model: PathOrUrl,
    config: PredictConfig | None = None,
    *,
    csv: PathOrUrl | None = None,
    reporter: Reporter = NULL_REPORTER,
) -> Summary:
    """Label each image.

    Calling it again does only what is missing. Predictions of another model are all replaced.

    Args:
        source: Images, as for `encode`, or a codes folder: then nothing is decoded, and no GPU is needed.
        out: The run's folder: it gets `predictions/`, `manifest/`, `job.json` and `_SUCCESS`.
        model: The model folder, or `imagenet`: VGG16's own 1000 classes, without training.
        config: How; the defaults are those of the command.
        csv: A file to write the predictions to, for a spreadsheet.
        reporter: Receives messages and progress.

    Returns:
        The summary, as `_SUCCESS` has it.

    Raises:
        InputError: The images, the model or the folder cannot be used.
        RunError: The run failed; the same call resumes it.
    """
    config = config or PredictConfig()
    folder = open_folder(out)
    if csv:
        target, _ = split_file(csv)  # refuses what cannot be written before hours of work
        if target.is_local and Path(csv).is_dir():
            raise InputError(f"{csv} is a folder: `csv` names the file to write.")
    notes: list[str] = []
    trained = imagenet_model(config, read_job(folder), notes) if model == IMAGENET else load_model(model)
    is_codes = not holds_pixels(open_folder(source)) and read_job(open_folder(source)) is not None
    if not is_codes and model != IMAGENET:
        config = replace(config, weights=follow_weights(open_folder(model), MODEL, trained.weights, config.weights))
    labelling = _label_codes(source, trained, config) if is_codes else _label_images(source, trained, config)
    with folder.locked():
        before = read_job(folder)
        if before and before.kind != PREDICTIONS:
            raise InputError(f"{folder.url} holds {before.kind}: predict into another folder.")
        name = IMAGENET if model == IMAGENET else open_folder(model).url
        run = RunExecution(folder, replace(labelling.job, model=name), notes)
        manifest = labelling.plan(run)
        summary = run.execute(manifest, labelling.factory, config.cluster, reporter)
    if csv:
        write_csv(open_run(out, PREDICTIONS), csv)
    return summary


@dataclass(frozen=True)
class _Labelling:
    """The differences between labelling images and labelling codes.

    Attributes:
        job: The job, without the name of the model.
        factory: What makes the workers.
        plan: Makes the manifest.
    """

    job: Job
    factory: Factory
    plan: Callable[[RunExecution], Manifest]


def _label_codes(source: PathOrUrl, model: Model, config: PredictConfig) -> _Labelling:
    codes = open_run(source, CODES)
    if config.weights:
        raise InputError(f"{codes.folder.url} holds codes, for which no network is needed: leave `weights` out.")
    of_photos = (
        *("prune", "retry_failed", "retry_all", "max_failed_share"),
        *("max_pixels", "image_timeout", "include_hidden", "exclude"),
    )
    if any(getattr(config, name) != getattr(ArchiveConfig, name) for name in of_photos):
        names = ", ".join(f"`{name}`" for name in of_photos)
        raise InputError(f"{codes.folder.url} holds codes, and no photo is listed or read: give {names} to `encode`.")
    if config.root:
        raise InputError(f"`root` is for lists of paths, and {codes.folder.url} holds codes: leave it out.")
    if codes.job.fingerprint != model.fingerprint:
        raise InputError(
            f"The model takes codes of another kind than those in {codes.folder.url}: "
            f"{model.fingerprint.differences(codes.job.fingerprint)}; train a model on these codes."
        )
    fingerprint, top_k = _fingerprint_of_predictions(model, config)
    job = Job(PREDICTIONS, codes.job.images, fingerprint, model.weights, codes.job.root, codes=codes.folder.url)
    factory = LabellerFactory(codes.folder.url, model.fingerprint, model.head, top_k)
    return _Labelling(job, factory, lambda run: run.plan_codes(codes))


def _label_images(source: PathOrUrl, model: Model, config: PredictConfig) -> _Labelling:
    images = open_photos(source, config.root, skipping_of(config))
    encoding = encode_config_for(model.fingerprint, config.weights or model.weights, config)
    weights, name = weights_identity(encoding)
    if weights != model.fingerprint.weights:
        raise InputError(
            f"The weights {name} are not those that the model was trained on ({model.weights}): "
            "name the file that holds those with `weights`."
        )
    made = fingerprint_over(images, model.fingerprint)
    if model.codes and made != model.fingerprint:  # VGG16's own classifier was trained on no codes
        raise InputError(
            f"The model takes codes of another kind than those of the photos in {images.url}: "
            f"{model.fingerprint.differences(made)}; train a model on these photos."
        )
    fingerprint, top_k = _fingerprint_of_predictions(replace(model, fingerprint=made), config)
    job = Job(PREDICTIONS, images.url, fingerprint, name, images.root)
    factory = EncoderFactory(replace(encoding, weights=name), images, model.head, top_k)
    return _Labelling(job, factory, lambda run: run.plan_images(images, config))


def _fingerprint_of_predictions(model: Model, config: PredictConfig) -> tuple[Fingerprint, int]:
    top_k = min(config.top_k, len(model.head.classes))
    return replace(model.fingerprint, head=model.head.identity, top_k=top_k), top_k
