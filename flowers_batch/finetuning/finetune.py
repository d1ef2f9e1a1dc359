"""Fine-tuning: frozen codes and a classifier on them, both trained further, evaluated, and compared."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.classifier.evaluated_head import evaluate_head
from flowers_batch.classifier.head import Head
from flowers_batch.classifier.held_out import hold_out
from flowers_batch.classifier.keyword_classes import expand_classes
from flowers_batch.classifier.labelled_split import LabelledSplit, split_labelled, with_codes_of
from flowers_batch.classifier.model_folder import MODEL, NETWORK, OWN_CODES, load_model, read_metrics
from flowers_batch.classifier.publication import publish_model
from flowers_batch.classifier.split import SPLITS, TEST, TRAIN, VALIDATION
from flowers_batch.classifier.training import training_settings
from flowers_batch.cluster.single_actor import run_on_one_actor
from flowers_batch.config import EncodeConfig, FinetuneConfig
from flowers_batch.dataset.foreign_rows import refuse_foreign_rows
from flowers_batch.dataset.manifest import read_manifest, read_rows
from flowers_batch.dataset.manifest_part import MISSING
from flowers_batch.dataset.photo_sources import open_photos
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError
from flowers_batch.finetuning.checkpoint import EPOCHS
from flowers_batch.finetuning.comparison import describe_tuning, verdict
from flowers_batch.finetuning.frozen import (
    SETTINGS,
    check_labels_of_photos,
    frozen_model_url,
    names_left_out,
    open_frozen_codes,
    train_baseline_once,
    with_first_labels,
)
from flowers_batch.finetuning.job import FinetuningJob, FinetuningResult, TrainingPhotos
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.runs.encode import encode
from flowers_batch.sources.images import IMAGES
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import PathOrUrl, open_folder

KIND = "tuned"  # of a head that was trained together with its network
_NO_CODES_MB = 1  # of memory, where only labels and splits are needed


def finetune(
    photos: PathOrUrl, model: PathOrUrl, config: FinetuneConfig | None = None, *, reporter: Reporter = NULL_REPORTER
) -> dict[str, Any]:
    """Train a network further on labelled photos, and compare the result with a classifier on frozen codes.

    A call with the same arguments resumes after the last complete epoch, and does nothing if all is done.

    Args:
        photos: Photos, as for `encode`; or a codes folder, which stands for its photos, its network and its weights.
        model: The model folder to write: besides what `train` writes, `network.safetensors`, `codes/` (of all photos,
            by the new weights) and `frozen/` (codes and classifier without fine-tuning).
        config: The settings; None: the defaults.
        reporter: Receives progress.

    Returns:
        The content of `metrics.json`, with the key `tuning` in addition.

    Raises:
        InputError: The photos, the labels, the weights or the folder are not valid.
        RunError: The run could not finish; the same call resumes it.
    """
    config = config or FinetuneConfig()
    classes = expand_classes(config.train.classes)  # a file of them may change meanwhile
    config = replace(config, train=replace(config.train, head="logistic", classes=classes))
    folder = open_folder(model)
    labels = with_first_labels(folder, config.train, reporter)
    check_labels_of_photos(photos, folder, config)  # before hours of work
    if folder.exists(MODEL) and not (folder.exists(SETTINGS) and "tuning" in read_metrics(folder)):
        raise InputError(f"{folder.url} holds a model that was not fine-tuned: choose another folder.")
    with folder.locked():
        folder.sweep()
        frozen = open_frozen_codes(photos, folder, config, reporter)
        labelled = split_labelled(frozen, replace(labels, max_memory_mb=_NO_CODES_MB), reporter)
        if train_baseline_once(folder, frozen, labelled, config, reporter):
            folder.delete_folder(EPOCHS)
            return read_metrics(folder)
        result = run_on_one_actor(build_job(folder, frozen, labelled, config), config.cluster, reporter)
        if result.state.best:
            encoding = encoding_config(frozen, config, folder.url_of(NETWORK))
            encode(frozen.place("images"), folder.url_of(OWN_CODES), encoding, reporter=reporter)
        return evaluate_and_publish(folder, frozen, labelled, result, config, reporter)


def build_job(folder: Folder, frozen: Run, labelled: LabelledSplit, config: FinetuneConfig) -> FinetuningJob:
    """Return the job of an actor, without the test photos and those that are missing since they were encoded.

    Raises:
        InputError: A split has no photos left, or a photo is not one of the source's.
    """
    rows = _manifest_rows(frozen, labelled.photos.rows)
    is_present = pc.not_equal(rows["action"], MISSING).to_numpy(zero_copy_only=False)
    _check_splits(frozen, labelled.splits[is_present])
    chosen = (labelled.splits != TEST) & is_present
    source = open_photos(*frozen.photos)
    refuse_foreign_rows(rows.filter(pa.array(chosen)), source)
    return FinetuningJob(
        config=config,
        encoding=encoding_config(frozen, config, frozen.job.weights),
        weights=frozen.job.fingerprint.weights,
        photos=TrainingPhotos(
            source=source,
            images=rows.select(IMAGES.names).filter(pa.array(chosen)),
            digests=[*compress(labelled.photos.sha256, chosen)],
            targets=labelled.codes.targets[chosen],
            is_training=labelled.splits[chosen] == TRAIN,
        ),
        head=load_model(frozen_model_url(folder)).head,
        folder=folder.url,
        codes=frozen.folder.url,
        tuned_on=frozen.job.tuned_on,
    )


def _check_splits(run: Run, splits: NDArray[np.int_]) -> None:
    if len(np.unique(splits)) < len(SPLITS):
        raise InputError(f"Too few of the labelled photos of {run.job.images} still exist: restore them.")


def _manifest_rows(run: Run, rows: NDArray[np.int_]) -> pa.Table:
    """Return manifest rows of a codes folder by their ascending row numbers, counted over all its shards."""
    manifest = read_manifest(run.folder)
    if manifest is None:
        raise InputError(f"{run.folder.url} is no longer complete: run the same `flowers-batch encode` again.")
    starts = np.cumsum([0, *(shard.images for shard in manifest.shards)])
    bounds = np.searchsorted(rows, starts)
    parts = [
        read_rows(run.folder, shard).take(pa.array(rows[first:last] - start))
        for shard, start, first, last in zip(manifest.shards, starts[:-1], bounds[:-1], bounds[1:], strict=True)
        if last > first
    ]
    return pa.concat_tables(parts).combine_chunks()


def encoding_config(run: Run, config: FinetuneConfig, weights: str) -> EncodeConfig:
    """Return the settings that a folder's codes were made with, with other weights and the actors of `config`."""
    return replace(
        config.encode or EncodeConfig(),
        weights=weights,
        root=run.place("root"),
        cluster=config.cluster,
        **names_left_out(run.folder),
        **run.job.fingerprint.encoding,
    )


def _with_first_counts(folder: Folder, labelled: LabelledSplit) -> LabelledSplit:
    """Return labelled photos with the counts of the first call: the copy of its labels has only those that matched."""
    counts, first = labelled.photos.counts, read_metrics(open_folder(frozen_model_url(folder)))
    counts = replace(counts, **{name: first[name] for name in asdict(counts) if name in first})
    return replace(labelled, photos=replace(labelled.photos, counts=counts))


def evaluate_and_publish(
    folder: Folder,
    frozen: Run,
    labelled: LabelledSplit,
    result: FinetuningResult,
    config: FinetuneConfig,
    reporter: Reporter,
) -> dict[str, Any]:
    """Evaluate the trained head on the network's codes, compare, and write the model folder; return its metrics."""
    # If no epoch was better, the weights are still those of the frozen codes.
    run = open_run(folder.url_of(OWN_CODES), CODES) if result.state.best else frozen
    before = load_model(frozen_model_url(folder)).head
    labelled = with_codes_of(run, _with_first_counts(folder, labelled), config.train.max_memory_mb)
    _check_splits(run, labelled.splits)
    head = Head(before.classes, before.normalization, (result.layer,))
    held_out = hold_out(head, labelled.codes_of(VALIDATION), reporter)
    evaluated = evaluate_head(run, labelled, head, held_out, config.train, reporter)
    tuning = describe_tuning(frozen_model_url(folder), frozen, run, labelled, evaluated.top.correct, result)
    tuning |= {"unfreeze": config.unfreeze, "verdict": verdict(tuning)}
    metrics = evaluated.metrics
    metrics |= {"head": KIND, "heads": {}, "tuning": tuning, "seconds": round(60 * tuning["minutes"], 3)}
    settings = {
        "kind": KIND,
        "initial_weights": frozen.job.weights,
        "unfreeze": config.unfreeze,
        "epochs": config.epochs,
    }
    publish_model(folder, run, labelled, evaluated, training_settings(config.train) | settings)
    folder.delete_folder(EPOCHS)
    return metrics
