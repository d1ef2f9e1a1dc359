"""Fine-tuning: photos to frozen codes, a classifier on them, both trained further, and whether that paid."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, replace
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flowers_batch.classifier.evaluated_head import evaluate_head, publish_model
from flowers_batch.classifier.evaluation import compare
from flowers_batch.classifier.head import Head
from flowers_batch.classifier.labelled_split import LabelledSplit, split_labelled, with_codes_of
from flowers_batch.classifier.labels import FOLDER, read_labels
from flowers_batch.classifier.model_folder import MODEL, NETWORK, OWN_CODES, load_model, read_metrics, read_split
from flowers_batch.classifier.split import SPLITS, TEST, TRAIN
from flowers_batch.classifier.training import train, training_settings
from flowers_batch.cluster.single_actor import run_on_one_actor
from flowers_batch.config import NULL_NETWORK, EncodeConfig, FinetuneConfig
from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.format_version import in_current_format, with_format
from flowers_batch.dataset.manifest import read_manifest, read_rows
from flowers_batch.dataset.manifest_part import MISSING
from flowers_batch.dataset.run_folder import Run, open_run, read_job
from flowers_batch.dataset.schema import CODES
from flowers_batch.encoding.networks import code_width, codes_fingerprint, weights_identity
from flowers_batch.errors import InputError
from flowers_batch.finetuning.trainer import EPOCHS, Tuned, Tuning, unfrozen
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.runs.encode import encode
from flowers_batch.sources.images import IMAGES
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.folder import Folder, PathOrUrl, open_folder

KIND = "tuned"  # of a head that was trained together with its network
_NO_CODES = 1  # megabyte: only labels and sides are asked for
_CHANCE = 0.05  # of a gain, or loss, that says nothing
ASKED = "tuning.json"  # what was asked for; what a killed run must be asked for again
FROZEN = "frozen"  # the folder of codes and classifier without fine-tuning, of the same photos


def finetune(
    photos: PathOrUrl, model: PathOrUrl, config: FinetuneConfig | None = None, *, reporter: Reporter = NULL_REPORTER
) -> dict[str, Any]:
    """Trains a network further on labelled photos, and says whether that is better than a classifier on frozen codes.

    The same call again goes on after the last whole epoch; it does nothing where all is done.

    Args:
        photos: Photos, as for `encode`; or a codes folder: then the photos are those that it was made from, and the
            network and its weights are those that made it.
        model: The model folder: besides what `train` puts there it gets `network.safetensors`, `codes/` (of all the
            photos, made by the new weights) and `frozen/`: codes and classifier without fine-tuning.
        config: How; the defaults are the command's.
        reporter: Receives how it goes.

    Returns:
        The content of `metrics.json`; in it, `tuning` has what fine-tuning adds.

    Raises:
        InputError: The photos, the labels, the weights or the folder are not as they must be.
        RunError: The run could not be ended; the same call goes on where it stopped.
    """
    config = config or FinetuneConfig()
    config = replace(config, train=replace(config.train, head="logistic"))
    for name in config.train.labels:
        if name != FOLDER:
            read_labels(name)  # before hours of work
    folder = open_folder(model)
    if folder.exists(MODEL) and not (folder.exists(ASKED) and "tuning" in read_metrics(folder)):
        raise InputError(f"{folder.url} holds a model that was not fine-tuned: choose another folder.")
    with folder.locked():
        folder.sweep()
        run = _frozen_codes(photos, folder, config, reporter)
        divided = split_labelled(run, replace(config.train, max_memory_mb=_NO_CODES), reporter)
        if train_baseline_once(folder, run, divided, config, reporter):
            folder.delete_folder(EPOCHS)
            return read_metrics(folder)
        tuned = _tune(folder, run, divided, config, reporter)
        if tuned.state.best:
            encoding = _encoding(run, config, folder.url_of(NETWORK))
            encode(run.job.images, folder.url_of(OWN_CODES), encoding, reporter=reporter)
        return _publish(folder, run, divided, tuned, config, reporter)


def _frozen(folder: Folder, name: str) -> str:
    """Return the URL of the codes, or the model, that a model folder has without fine-tuning."""
    old = formats_0_1.FROZEN_FOLDER
    return folder.url_of(f"{old if folder.exists(old) else FROZEN}/{name}")


def _read_asked(folder: Folder) -> dict[str, Any]:
    """Read `tuning.json`."""
    try:
        return in_current_format(folder.read_json(ASKED), folder.url_of(ASKED), formats_0_1.upgrade_tuning)
    except TypeError as error:
        raise InputError(f"{folder.url_of(ASKED)} is damaged ({error}): choose another folder.") from None


def _frozen_codes(photos: PathOrUrl, folder: Folder, config: FinetuneConfig, reporter: Reporter) -> Run:
    """The codes that fine-tuning begins with: those that were given or that an earlier call made, else made now."""
    asked, job = config.encode, read_job(open_folder(photos))
    if job is None:
        asked = replace(asked or EncodeConfig(), cluster=config.cluster)
        code_width(asked)
        _check(asked.network, asked.layer, config)
        if folder.exists(ASKED):
            run = open_run(_frozen(folder, CODES), CODES)
            source = open_source(photos, asked.root)
            if (source.url, source.root) != (run.job.images, run.job.root):
                raise InputError(
                    f"{folder.url} was begun with other photos, those of {run.job.images}: choose another folder."
                )
            return _as_asked(run, asked, "choose another folder, or ask as before")
        encode(photos, _frozen(folder, CODES), asked, reporter=reporter)
        return open_run(_frozen(folder, CODES), CODES)
    run = open_run(photos, CODES)
    _check(run.job.fingerprint.network, run.job.fingerprint.layer, config)
    if asked is None:
        return run
    if asked.root not in (None, run.job.root):
        raise InputError(f"{run.folder.url} says itself where its photos lie: leave `root` out.")
    return _as_asked(run, asked, "leave that out, or encode anew")


def encoding_settings_of(photos: PathOrUrl) -> dict[str, Any]:
    """The settings of `EncodeConfig` by which a codes folder was made; none of what is not one."""
    job = read_job(open_folder(photos))
    return {} if job is None else {"weights": job.weights, "root": job.root} | job.fingerprint.encoding


def _as_asked(run: Run, asked: EncodeConfig, advice: str) -> Run:
    """Codes that were made as is asked for, with weights that may lie elsewhere now. Photos that have come since take
    no part."""
    made, name = run.job.fingerprint, asked.weights
    precision = made.precision if asked.precision == "auto" else asked.precision
    differing = codes_fingerprint(asked, made.weights, precision).differences(made)
    if not differing:
        identity, name = weights_identity(asked)
        if identity != made.weights:
            differing = f"weights ({name}, not {run.job.weights})"
    if differing:
        raise InputError(f"What is asked for and the codes in {run.folder.url} differ in {differing}: {advice}.")
    return replace(run, job=replace(run.job, weights=name))


def _check(network: str, layer: str, config: FinetuneConfig) -> None:
    if network == NULL_NETWORK:
        raise InputError("The null network has nothing to train: choose vgg16 or vgg19.")
    unfrozen(network, layer, config.unfreeze)


def train_baseline_once(
    folder: Folder, run: Run, divided: LabelledSplit, config: FinetuneConfig, reporter: Reporter
) -> bool:
    """Trains the classifier on frozen codes, unless an earlier call did; tells whether all was done by that."""
    labelled = divided.photos
    rows = sorted(zip(labelled.paths, labelled.labels.tolist(), labelled.digests.tolist(), strict=True))
    asked = {
        "codes": run.job.fingerprint.digest,
        "labelled photos": hashlib.sha256(repr(rows).encode()).hexdigest(),
        "min_precision": config.train.min_precision,
        "seed": config.train.seed,
    } | {name: getattr(config, name) for name in ("unfreeze", "epochs", "batch_size", "lr_multiplier")}
    asked["augment"] = sorted(set(config.augment))
    if not folder.exists(ASKED):
        train(run.folder.url, _frozen(folder, "model"), config.train, reporter=reporter)
        folder.write_json(ASKED, with_format(asked))
        return False
    before = _read_asked(folder)
    if others := ", ".join(name for name in asked if before.get(name) != asked[name]):
        raise InputError(
            f"{folder.url} holds a fine-tuning that differs in: {others}; choose another folder, or ask as before."
        )
    return folder.exists(MODEL)


def _tune(folder: Folder, run: Run, divided: LabelledSplit, config: FinetuneConfig, reporter: Reporter) -> Tuned:
    """Has an actor train. It gets no photo of the test side, and none that has vanished since it was encoded."""
    listed = _listed(run, divided.photos.rows)
    present = pc.not_equal(listed["action"], MISSING).to_numpy(zero_copy_only=False)
    _check_sides(run, divided.splits[present])
    chosen = (divided.splits != TEST) & present
    work = Tuning(
        config=config,
        encoding=_encoding(run, config, run.job.weights),
        weights=run.job.fingerprint.weights,
        source=open_source(run.job.images, run.job.root),
        photos=listed.select(IMAGES.names).filter(pa.array(chosen)),
        digests=[*compress(divided.photos.sha256, chosen)],
        targets=divided.codes.targets[chosen],
        trained=divided.splits[chosen] == TRAIN,
        head=load_model(_frozen(folder, "model")).head,
        folder=folder.url,
        codes=run.folder.url,
    )
    return run_on_one_actor(work, config.cluster, reporter)


def _check_sides(run: Run, sides: NDArray[np.int_]) -> None:
    if len(np.unique(sides)) < len(SPLITS):
        raise InputError(f"Too few of the labelled photos of {run.job.images} are still there: restore them.")


def _listed(run: Run, rows: NDArray[np.int_]) -> pa.Table:
    """The manifest's rows of some rows of a codes folder, which grow, counted over all its shards."""
    manifest = read_manifest(run.folder)
    if manifest is None:
        raise InputError(f"{run.folder.url} is not whole any more: run the same `flowers-batch encode` again.")
    starts = np.cumsum([0, *(shard.images for shard in manifest.shards)])
    bounds = np.searchsorted(rows, starts)
    parts = [
        read_rows(run.folder, shard).take(pa.array(rows[first:last] - start))
        for shard, start, first, last in zip(manifest.shards, starts[:-1], bounds[:-1], bounds[1:], strict=True)
        if last > first
    ]
    return pa.concat_tables(parts).combine_chunks()


def _encoding(run: Run, config: FinetuneConfig, weights: str) -> EncodeConfig:
    """How the codes of a folder are made, with weights by this name, by the actors that are asked for."""
    return replace(
        config.encode or EncodeConfig(),
        weights=weights,
        root=run.job.root,
        cluster=config.cluster,
        **run.job.fingerprint.encoding,
    )


def _publish(
    folder: Folder, frozen: Run, photos: LabelledSplit, tuned: Tuned, config: FinetuneConfig, reporter: Reporter
) -> dict[str, Any]:
    """Judges the network and its head by the codes that they gave, compares, and writes the model folder."""
    # Where nothing got better, the weights are those that the codes at hand were made with.
    run = open_run(folder.url_of(OWN_CODES), CODES) if tuned.state.best else frozen
    before = load_model(_frozen(folder, "model")).head
    divided = with_codes_of(run, photos, config.train.max_memory_mb)
    _check_sides(run, divided.splits)
    judged = evaluate_head(
        run, divided, Head(before.classes, before.mean, before.scale, (tuned.layer,)), config.train, reporter
    )
    metrics = judged.metrics
    metrics |= {"head": KIND, "heads": {}, "tuning": _tuning(folder, frozen, run, divided, judged.probabilities, tuned)}
    metrics["tuning"] |= {"unfreeze": config.unfreeze, "verdict": _verdict(metrics["tuning"])}
    metrics["seconds"] = round(60 * metrics["tuning"]["minutes"], 3)
    asked = {"kind": KIND, "initial_weights": frozen.job.weights, "unfreeze": config.unfreeze, "epochs": config.epochs}
    publish_model(folder, run, divided, judged, training_settings(config.train) | asked)
    folder.delete_folder(EPOCHS)
    return metrics


def _tuning(
    folder: Folder, frozen: Run, run: Run, divided: LabelledSplit, probabilities: NDArray[np.float32], tuned: Tuned
) -> dict[str, Any]:
    """How training went, and how the outcome does against the classifier on frozen codes on the same photos."""
    place = open_folder(_frozen(folder, "model"))
    before = read_metrics(place)
    rows = read_split(place, ["path", "label", "prediction", "split"]).to_pylist()
    was_right = {row["path"]: row["prediction"] == row["label"] for row in rows if row["split"] == SPLITS[TEST]}
    # Of photos that are copies of each other, one counts: they are right or wrong together.
    _, firsts = np.unique(divided.codes.groups, return_index=True)
    right = probabilities.argmax(1) == divided.codes.targets
    paths = {number: divided.photos.paths[number] for number in firsts}
    both = [number for number, path in paths.items() if path in was_right]
    stages: Counter[str] = Counter()
    for epoch in tuned.state.epochs:
        stages.update(epoch.stages)
    seconds = sum(epoch.seconds for epoch in tuned.state.epochs)
    before_seconds = _seconds(frozen) + before["seconds"]
    encoding_seconds = 0.0 if run is frozen else _seconds(run)
    return {
        "initial_weights": frozen.job.weights,
        "epochs": [asdict(epoch) for epoch in tuned.state.epochs],
        "best_epoch": tuned.state.best,
        "gpus": tuned.gpus,
        "stages": {name: round(spent, 3) for name, spent in stages.items()},
        "stage_shares": {name: spent / seconds for name, spent in stages.items()},
        "minutes": (before_seconds + seconds + encoding_seconds) / 60,
        "frozen": {
            "model": place.url,
            "minutes": before_seconds / 60,
        },
        "comparison": compare(right[both], np.array([was_right[paths[number]] for number in both])),
    }


def _seconds(run: Run) -> float:
    """What it takes to encode all images of a folder, at the rate of the run that ended; of that run alone, where it
    had nothing left to encode."""
    rate = run.summary["images_per_second"]
    return run.summary["images"] / rate if rate else run.summary["seconds"]


def _verdict(tuning: dict[str, Any]) -> str:
    """Whether it paid, in a sentence."""
    compared = tuning["comparison"]
    low, high = compared["interval95"]
    gain = (
        f"{compared['gain']:+.1%} of {compared['photos']} held-out photos, 95% interval {low:+.1%} to {high:+.1%}, "
        f"p = {compared['p_value']:.2g}"
    )
    costs = f"{tuning['minutes']:.1f} minutes instead of {tuning['frozen']['minutes']:.1f}"
    is_chance = compared["p_value"] >= _CHANCE
    if compared["gain"] > 0 and not is_chance:
        return f"Fine-tuning paid: more labels are right than with frozen codes ({gain}), for {costs}."
    why = "the difference may as well be chance" if is_chance else "fewer labels are right than with frozen codes"
    if not tuning["best_epoch"]:
        why = "no epoch was better on the validation photos than the classifier on frozen codes"
    return f"Fine-tuning did not pay: {why} ({gain}), for {costs}. Use {tuning['frozen']['model']}."
