"""What fine-tuning starts from and is compared with: codes of the frozen network, and a classifier on them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

from flowers_batch.classifier.label_sources import check_labels
from flowers_batch.classifier.labelled_split import LabelledSplit
from flowers_batch.classifier.model_folder import LABELS, MODEL, load_model, training_labels
from flowers_batch.classifier.training import train_once, training_settings
from flowers_batch.config import NULL_NETWORK, EncodeConfig, FinetuneConfig, TrainConfig
from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.following import follow_weights
from flowers_batch.dataset.format_version import in_current_format, with_format
from flowers_batch.dataset.job import JOB, read_job
from flowers_batch.dataset.manifest import read_manifest
from flowers_batch.dataset.photo_sources import holds_pixels, open_photos
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.encoding.networks import code_width, codes_fingerprint, fingerprint_over, weights_identity
from flowers_batch.errors import InputError
from flowers_batch.finetuning.trainable_model import unfrozen_layers
from flowers_batch.progress import Reporter
from flowers_batch.runs.encode import encode
from flowers_batch.runs.planning import skipping_of
from flowers_batch.sources.skipping import SKIP_NOTHING, SKIP_SYSTEM, Skipping
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.json_files import read_json, write_json
from flowers_batch.storage.opening import PathOrUrl, open_folder

SETTINGS = "tuning.json"  # with which a fine-tuning run was started; it is resumed with no others
_FROZEN = "frozen"  # the folder of codes and classifier without fine-tuning, of the same photos


def frozen_codes_url(folder: Folder) -> str:
    """Return the URL of a model folder's codes without fine-tuning."""
    return _frozen_url(folder, "codes")


def frozen_model_url(folder: Folder) -> str:
    """Return the URL of a model folder's classifier without fine-tuning."""
    return _frozen_url(folder, "model")


def _frozen_url(folder: Folder, name: str) -> str:
    old = formats_0_1.FROZEN_FOLDER
    return folder.url_of(f"{old if folder.exists(old) else _FROZEN}/{name}")


def check_labels_of_photos(photos: PathOrUrl, folder: Folder, config: FinetuneConfig) -> None:
    """Check the labels of photos that are yet to be encoded; those of a codes folder are read at once.

    Args:
        photos: A codes folder, or photos.
        folder: The model folder.
        config: The settings.

    Raises:
        InputError: The labels are not valid.
    """
    if not _holds_codes(open_folder(photos)) and not folder.exists(SETTINGS):
        encoding = config.encode or EncodeConfig()
        source = open_photos(photos, encoding.root, skipping_of(encoding))
        check_labels(config.train.labels, source, config.train.classes)


def open_frozen_codes(photos: PathOrUrl, folder: Folder, config: FinetuneConfig, reporter: Reporter) -> Run:
    """Return the codes that fine-tuning starts with, and encode photos if there are none yet.

    Args:
        photos: A codes folder, or photos.
        folder: The model folder.
        config: The settings.
        reporter: Receives progress.

    Raises:
        InputError: The codes are of other photos, or were made with other settings.
    """
    encoding = config.encode
    if not _holds_codes(open_folder(photos)):
        encoding = replace(encoding or EncodeConfig(), cluster=config.cluster)
        return _encode_once(photos, folder, encoding, config, reporter)
    run = open_run(photos, CODES, {"images": config.train.images, "root": encoding.root if encoding else None})
    _check_trainable(run.job.fingerprint.network, run.job.fingerprint.layer, config)
    images, root = run.photos
    run = replace(run, given={"images": images, "root": root})
    reporter.message(f"photos are read from {images}")
    if encoding is None:
        return replace(run, job=replace(run.job, weights=follow_weights(run.folder, JOB, run.job.weights)))
    if encoding.root not in (None, run.job.root):
        raise InputError(f"{run.folder.url} contains the `root` of its photos: leave `root` out.")
    if skipping_of(encoding) not in (SKIP_SYSTEM, _skipping(run.folder)):
        raise InputError(f"{run.folder.url} has listed its photos: leave `include_hidden` and `exclude` out.")
    return _with_weights_of(run, encoding, "leave that out, or encode the photos again")


def _holds_codes(folder: Folder) -> bool:
    """Return whether a folder is that of codes, or of another run but one of pixels, which are photos."""
    return not holds_pixels(folder) and read_job(folder) is not None


def _encode_once(
    photos: PathOrUrl, folder: Folder, encoding: EncodeConfig, config: FinetuneConfig, reporter: Reporter
) -> Run:
    code_width(encoding)  # refuses layers without a width
    _check_trainable(encoding.network, encoding.layer, config)
    if folder.exists(SETTINGS):
        source = open_photos(photos, encoding.root, skipping_of(encoding))
        run = open_run(frozen_codes_url(folder), CODES, {"images": source.url, "root": source.root})
        if (source.url, source.root) != (run.job.images, run.job.root):
            raise InputError(
                f"{folder.url} was started with other photos, those of {run.job.images}: choose another folder."
            )
        if _skipping(run.folder) not in (source.skipping, SKIP_NOTHING):  # nothing: version 0.1 took every name
            raise InputError(
                f"{folder.url} was started with other settings of `include_hidden` and `exclude`: choose another "
                "folder, or the same settings."
            )
        return _with_weights_of(run, encoding, "choose another folder, or the same settings")
    encode(photos, frozen_codes_url(folder), encoding, reporter=reporter)
    return open_run(frozen_codes_url(folder), CODES, {"images": photos, "root": encoding.root})


def encoding_settings_of(photos: PathOrUrl, given: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Return the settings of `EncodeConfig` that a codes folder was made with; none of anything else.

    Args:
        photos: A codes folder, or photos.
        given: Settings that take the place of these, and are among those returned.

    Raises:
        InputError: The weights are in a place that may not be followed.
    """
    folder = open_folder(photos)
    job = read_job(folder) if _holds_codes(folder) else None
    if job is None:
        return {**given}
    weights = follow_weights(folder, JOB, job.weights, given.get("weights"))
    return {**names_left_out(folder), **job.fingerprint.encoding, **given, "weights": weights}


def names_left_out(codes: Folder) -> dict[str, Any]:
    """Return the settings of `EncodeConfig` by which the photos of codes were listed."""
    return asdict(_skipping(codes))


def _skipping(codes: Folder) -> Skipping:
    manifest = read_manifest(codes)
    return manifest.listing.skipping if manifest else SKIP_SYSTEM


def _with_weights_of(run: Run, encoding: EncodeConfig, advice: str) -> Run:
    """Return codes with the name of equal weights that have moved.

    Photos that were added after the codes were made take no part.

    Raises:
        InputError: The codes were made with other settings.
    """
    made, name = run.job.fingerprint, encoding.weights
    precision = made.precision if encoding.precision == "auto" else encoding.precision
    if encoding.decode == "auto":
        encoding = replace(encoding, decode=made.decode)
    expected = codes_fingerprint(encoding, made.weights, precision)
    if holds_pixels(open_folder(run.place("images"))):
        expected = fingerprint_over(open_photos(*run.photos), expected)
    differences = expected.differences(made)
    if not differences:
        identity, name = weights_identity(encoding)
        if identity != made.weights:
            differences = f"weights ({name}, not {run.job.weights})"
    if differences:
        raise InputError(f"The settings and the codes in {run.folder.url} differ in {differences}: {advice}.")
    return replace(run, job=replace(run.job, weights=name))


def _check_trainable(network: str, layer: str, config: FinetuneConfig) -> None:
    if network == NULL_NETWORK:
        raise InputError("The null network has nothing to train: choose vgg16 or vgg19.")
    unfrozen_layers(network, layer, config.unfreeze)


def with_first_labels(folder: Folder, config: TrainConfig, reporter: Reporter) -> TrainConfig:
    """Return the settings with the labels that an earlier call read from the same sources, if there was one.

    Labels files may be edited, moved or deleted while a run is stopped: it goes on with the labels it began with.

    Args:
        folder: The model folder.
        config: The settings.
        reporter: Receives a message if the copy is used.
    """
    baseline = open_folder(frozen_model_url(folder))
    if not (folder.exists(SETTINGS) and baseline.exists(LABELS)):
        return config
    before = load_model(baseline.url)
    settings = training_settings(config)
    if any(before.training.get(name, []) != settings[name] for name in ("labels", "classes")):
        return config
    labels = training_labels(baseline, before)
    reporter.message(f"the labels are those of the first call, in {', '.join(labels)}")
    return replace(config, labels=labels, classes=())


def train_baseline_once(
    folder: Folder, run: Run, labelled: LabelledSplit, config: FinetuneConfig, reporter: Reporter
) -> bool:
    """Train the classifier on frozen codes, unless an earlier call did.

    Returns:
        Whether the fine-tuning run is finished, too.

    Raises:
        InputError: An earlier call had other settings.
    """
    photos = labelled.photos
    rows = sorted(zip(photos.paths, photos.labels.tolist(), photos.digests.tolist(), strict=True))
    settings = {
        "codes": run.job.fingerprint.digest,
        "labelled photos": hashlib.sha256(repr(rows).encode()).hexdigest(),
        "min_precision": config.train.min_precision,
        "seed": config.train.seed,
    } | {name: getattr(config, name) for name in ("unfreeze", "epochs", "batch_size", "lr_multiplier")}
    settings["augment"] = sorted(set(config.augment))
    if not folder.exists(SETTINGS):
        train_once(run.folder.url, frozen_model_url(folder), config.train, reporter, keeps_validation=True)
        write_json(folder, SETTINGS, with_format(settings))
        return False
    before = _read_settings(folder)
    if differing := ", ".join(name for name in settings if before.get(name) != settings[name]):
        raise InputError(
            f"{folder.url} holds a fine-tuning that differs in: {differing}; choose another folder, or the same "
            "settings."
        )
    return folder.exists(MODEL)


def _read_settings(folder: Folder) -> dict[str, Any]:
    try:
        content = read_json(folder, SETTINGS)
        return in_current_format(content, folder.url_of(SETTINGS), formats_0_1.upgrade_tuning)
    except TypeError as error:
        raise InputError(f"{folder.url_of(SETTINGS)} is damaged ({error}): choose another folder.") from None
