"""Encode and predict: from images to a folder that is whole, going on where an earlier run stopped."""

from __future__ import annotations

import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flowers_batch.cluster import Factory, Outcome, run_shards
from flowers_batch.config import (
    IMAGENET,
    ArchiveConfig,
    ClusterConfig,
    EncodeConfig,
    Fingerprint,
    InputError,
    PredictConfig,
    RunError,
)
from flowers_batch.dataset import (
    CODES,
    JOB,
    PREDICTIONS,
    SUCCESS,
    Footer,
    Job,
    Run,
    count_duplicates,
    failed_paths,
    library_versions,
    open_run,
    read_footer,
    read_job,
    write_csv,
    write_job,
)
from flowers_batch.encoder import EncoderFactory, LabellerFactory, codes_fingerprint, weights_identity
from flowers_batch.heads import Head, Model, load_model
from flowers_batch.progress import watch
from flowers_batch.shards import (
    MANIFEST,
    Manifest,
    Shard,
    completed,
    copy_manifest,
    grow_manifest,
    place_of,
    read_manifest,
    write_manifest,
)
from flowers_batch.sources import Source, open_source
from flowers_batch.storage import Folder, Where, open_folder

_OLD_SCRATCH_SECONDS = 3600.0  # no writer pauses so long between two row groups
# Reasons of rows that may succeed when they are tried again; too_large under another --max-pixels.
_PASSING = ("missing", "unreadable", "timeout", "too_large")


@dataclass(frozen=True)
class Summary:
    """What became of a run; `_SUCCESS` holds it as JSON.

    Attributes:
        images: Images in the manifest, each of them a row.
        ok, failed: Rows of each status.
        ignored: Files that are no images by their name.
        repeated: Images that a list names again, and that are rows once.
        duplicates: Images with the same bytes as another, the first of each kind aside.
        vanished: Images that the last listing did not find; their rows are kept.
        changes: What this run's listing changed: images that were `new`, `changed`, `vanished`, `returned`, `pruned`
            and `retried`; empty where nothing was listed.
        already_done: Images that earlier runs had done.
        seconds: Of this run, start-up included.
        images_per_second: Of this run, from the first actor that was ready; 0 where nothing was left to do.
        stages: Seconds by stage, over all actors; of an actor's threads, which `read` and `decode`, together.
        stage_rates: Images/s that each stage would reach if it alone took time; the lowest is what limits the run.
            None for `wait`, in which the network had nothing to do.
        stage_shares: The part of the actors' time, 0 to 1, in which each stage was at work; they overlap.
        reasons: Failed rows by reason.
        fingerprint: What the rows depend on, `Fingerprint.digest`.
        shards: How many files the rows lie in.
        actors: Where this run's actors ran: host, and GPUs as Ray numbers them.
        deaths: Actors that died and were replaced.
        stalls: Actors that made no progress, and were replaced.
        weights: The name of the network's weights.
        notes: What a person should know about the rows.
    """

    images: int
    ok: int
    failed: int
    ignored: int
    repeated: int
    duplicates: int
    vanished: int
    changes: dict[str, int]
    already_done: int
    seconds: float
    images_per_second: float
    stages: dict[str, float]
    stage_rates: dict[str, float | None]
    stage_shares: dict[str, float]
    reasons: dict[str, int]
    fingerprint: str
    shards: int
    actors: list[tuple[str, tuple[str, ...]]]
    deaths: int
    stalls: int
    weights: str
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The summary as what JSON can hold."""
        return asdict(self)


def encode(images: Where, out: Where, config: EncodeConfig | None = None, *, progress: bool = False) -> Summary:
    """Turns each image into a row with its code.

    The same call again does only what is missing; it does nothing where all is done.

    Args:
        images: What `sources.open_source` opens: a folder, lists, tars or tables; a path, or a URL of `pyarrow.fs`.
        out: The run's folder: it gets `codes/`, `manifest/`, `job.json` and `_SUCCESS`.
        config: How; the defaults are the command's.
        progress: Whether progress is shown on standard error.

    Raises:
        InputError: The images, the weights or the folder are not as they must be.
        RunError: The run could not be ended; the same call goes on where it stopped.
    """
    config = config or EncodeConfig()
    source, folder = open_source(images, config.root), open_folder(out)
    weights, name = weights_identity(config)
    with folder.locked():
        job = read_job(folder)
        if job and job.kind != CODES:
            raise InputError(f"{folder.url} holds predictions: encode into another folder.")
        if job and config.precision == "auto":
            config = replace(config, precision=job.fingerprint.precision)
        config = replace(config, weights=name)
        run = _Run(
            folder, Job(CODES, source.url, codes_fingerprint(config, weights, config.precision), name, source.root)
        )
        if job and job.fingerprint != run.job.fingerprint:
            raise InputError(
                f"{folder.url} holds codes of another kind: "
                f"{run.job.fingerprint.differences(job.fingerprint)}; encode into another folder, or as before."
            )
        manifest = run.plan_images(source, config)
        return run.work(manifest, EncoderFactory(config, source), config.cluster, "encode", progress)


def predict(
    source: Where,
    out: Where,
    model: Where,
    config: PredictConfig | None = None,
    *,
    csv: Where | None = None,
    progress: bool = False,
) -> Summary:
    """Labels each image.

    The same call again does only what is missing. Predictions of another model are replaced, all of them.

    Args:
        source: Images, as for `encode`, or a codes folder: then nothing is decoded, and no GPU is needed.
        out: The run's folder: it gets `predictions/`, `manifest/`, `job.json` and `_SUCCESS`.
        model: The model folder, or `imagenet`: VGG16's own 1000 classes, for which nothing is trained.
        config: How; the defaults are the command's.
        csv: A file that gets the predictions for a spreadsheet.
        progress: Whether progress is shown on standard error.

    Raises:
        InputError: The images, the model or the folder are not as they must be.
        RunError: The run could not be ended; the same call goes on where it stopped.
    """
    config = config or PredictConfig()
    folder = open_folder(out)
    if csv and Path(csv).is_dir():
        raise InputError(f"{csv} is a folder: --csv names the file to write.")
    notes: list[str] = []
    trained = _imagenet_model(config, read_job(folder), notes) if model == IMAGENET else load_model(model)
    is_codes = read_job(open_folder(source)) is not None
    work = _label_codes(source, trained, config) if is_codes else _label_images(source, trained, config)
    with folder.locked():
        before = read_job(folder)
        if before and before.kind != PREDICTIONS:
            raise InputError(f"{folder.url} holds codes: predict into another folder.")
        run = _Run(folder, replace(work.job, model=IMAGENET if model == IMAGENET else open_folder(model).url), notes)
        manifest = work.plan(run)
        summary = run.work(manifest, work.factory, config.cluster, "predict", progress)
    if csv:
        write_csv(open_run(out, PREDICTIONS), csv)
    return summary


def factory_of(job: Job) -> EncoderFactory:
    """What makes a run's rows anew from its images, however many pixels those have.

    Raises:
        InputError: The images or the model are not to be had.
    """
    config = ArchiveConfig(root=job.root, max_pixels=sys.maxsize)
    factory = EncoderFactory(_encoding(job.fingerprint, job.weights, config), open_source(job.images, job.root))
    if job.model is None:
        return factory
    if job.model == IMAGENET:
        head = _imagenet_model(PredictConfig(weights=job.weights), job, []).head
    else:
        head = load_model(job.model).head
    return replace(factory, head=head, top_k=job.fingerprint.top_k)


def _encoding(made: Fingerprint, weights: str, config: ArchiveConfig) -> EncodeConfig:
    """How codes of this kind are made."""
    return EncodeConfig(weights=weights, batch_size=config.batch_size, max_pixels=config.max_pixels, **made.encoding)


def _imagenet_model(config: PredictConfig, before: Job | None, notes: list[str]) -> Model:
    """VGG16's own classifier as a model: its codes are the logits of layer `fc8`, its head is a softmax.

    Args:
        config: Its weights take the place of the published ones.
        before: What made the folder that is gone on with, whose precision is kept.
        notes: Is told if classes are numbered, since their names cannot be had.
    """
    encoding = EncodeConfig(weights=config.weights or IMAGENET, layer="fc8", store="float32")
    weights, name = weights_identity(encoding)
    classes = _imagenet_classes(notes)
    head = Head(classes, np.zeros(len(classes), np.float32), np.ones(len(classes), np.float32), ())
    precision = before.fingerprint.precision if before else encoding.precision
    return Model(head, codes_fingerprint(encoding, weights, precision), name, "", "", {}, {}, {})


def _imagenet_classes(notes: list[str]) -> tuple[str, ...]:
    from tensorflow_vgg.download import DownloadError
    from tensorflow_vgg.imagenet import class_names
    from tensorflow_vgg.network import CLASSES

    try:
        return tuple(class_names())
    except DownloadError as error:
        notes.append(f"Classes are numbered, since ImageNet's names for them cannot be had: {error}")
        return tuple(f"class {number}" for number in range(CLASSES))


@dataclass(frozen=True)
class _Labelling:
    """What labelling images and labelling codes differ in."""

    job: Job
    factory: Factory
    plan: Callable[[_Run], Manifest]


def _label_codes(source: Where, model: Model, config: PredictConfig) -> _Labelling:
    codes = open_run(source, CODES)
    if config.weights:
        raise InputError(f"{codes.folder.url} holds codes, for which no network is needed: leave --weights out.")
    if config.prune or config.retry_failed or config.max_pixels != ArchiveConfig.max_pixels:
        raise InputError(
            f"{codes.folder.url} holds codes, and no photo is read: give --prune, --retry-failed and --max-pixels to "
            "`encode`."
        )
    if config.root:
        raise InputError(f"--root is for lists of paths, and {codes.folder.url} holds codes: leave it out.")
    if codes.job.fingerprint != model.fingerprint:
        raise InputError(
            f"The model takes codes of another kind than those in {codes.folder.url}: "
            f"{model.fingerprint.differences(codes.job.fingerprint)}; train a model on these codes."
        )
    fingerprint, top_k = _of_predictions(model, config)
    job = Job(PREDICTIONS, codes.job.images, fingerprint, model.weights, codes.job.root, codes=codes.folder.url)
    factory = LabellerFactory(codes.folder.url, model.fingerprint, model.head, top_k)
    return _Labelling(job, factory, lambda run: run.plan_codes(codes))


def _label_images(source: Where, model: Model, config: PredictConfig) -> _Labelling:
    images = open_source(source, config.root)
    encoding = _encoding(model.fingerprint, config.weights or model.weights, config)
    weights, name = weights_identity(encoding)
    if weights != model.fingerprint.weights:
        raise InputError(
            f"The weights {name} are not those that the model was trained on ({model.weights}): "
            "name the file that holds those with --weights."
        )
    fingerprint, top_k = _of_predictions(model, config)
    job = Job(PREDICTIONS, images.url, fingerprint, name, images.root)
    factory = EncoderFactory(replace(encoding, weights=name), images, model.head, top_k)
    return _Labelling(job, factory, lambda run: run.plan_images(images, config))


def _of_predictions(model: Model, config: PredictConfig) -> tuple[Fingerprint, int]:
    top_k = min(config.top_k, len(model.head.classes))
    return replace(model.fingerprint, head=model.head.identity, top_k=top_k), top_k


class _Run:
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
        stopped = manifest.is_whole and manifest.source == place_of(source) and not self.folder.exists(SUCCESS)
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
        if footer is None or not footer.reasons.keys() & set(_PASSING):
            return set()
        return failed_paths(self.folder, self.job.kind, shard.number, _PASSING)

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

    def work(self, manifest: Manifest, factory: Factory, cluster: ClusterConfig, verb: str, shown: bool) -> Summary:
        """Has all shards done that are missing, checks that none is left, and writes `_SUCCESS`."""
        for name in ("", self.job.kind, MANIFEST):
            self.folder.sweep(name, _OLD_SCRATCH_SECONDS)
        # A fingerprint whose precision is still open is that of no shard, so that none is complete.
        before = self._complete(manifest)
        missing = [shard for shard in manifest.shards if shard.number not in before]
        outcome = Outcome()
        if missing:
            self.folder.delete(SUCCESS)
            already = manifest.images - sum(shard.images for shard in missing)
            with watch(shown, verb, manifest.images, already) as watcher:
                outcome = run_shards(factory, self.folder.url, self.job.kind, missing, cluster, self._agree, watcher)
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
            duplicates = self.folder.read_json(SUCCESS)["duplicates"]
            return self._summary(manifest, before, footers, outcome, duplicates)
        duplicates = count_duplicates(self.folder, self.job.kind, len(manifest.shards), manifest.images)
        summary = self._summary(manifest, before, footers, outcome, duplicates)
        self.folder.write_json(SUCCESS, summary.to_json())
        return summary

    def _agree(self, fingerprint: Fingerprint) -> None:
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
            if number not in self._codes or footer.content == self._codes[number].content
        }

    def _summary(
        self,
        manifest: Manifest,
        before: dict[int, Footer],
        footers: dict[int, Footer],
        outcome: Outcome,
        duplicates: int,
    ) -> Summary:
        reasons: Counter[str] = Counter()
        for footer in footers.values():
            reasons.update(footer.reasons)
        already = outcome.carried + sum(footer.ok + footer.failed for footer in before.values())
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
            vanished=manifest.gone,
            changes=self._changes,
            already_done=already,
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
