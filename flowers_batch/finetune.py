"""Fine-tuning: photos to fixed codes, a classifier on them, both trained further, and whether that paid."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flowers_batch.cluster import run_alone
from flowers_batch.config import IMAGENET, NULL_NETWORK, EncodeConfig, FinetuneConfig, InputError
from flowers_batch.dataset import CODES, Run, open_run, read_job
from flowers_batch.encoder import codes_fingerprint, weights_identity
from flowers_batch.evaluation import compare
from flowers_batch.grouping import SIDES, TEST, TRAIN
from flowers_batch.heads import METRICS, MODEL, NETWORK, OWN_CODES, SPLIT, Head, load_model
from flowers_batch.labels import FOLDER, read_labels
from flowers_batch.progress import steps
from flowers_batch.runs import encode
from flowers_batch.shards import GONE, read_manifest, read_rows
from flowers_batch.sources import IMAGES, open_source
from flowers_batch.storage import Folder, Where, open_folder
from flowers_batch.training import Divided, described, divide, judge, publish, train, with_codes_of
from flowers_batch.tuning import EPOCHS, Tuned, Tuning, unfrozen

_LOG = logging.getLogger(__name__)
KIND = "tuned"  # of a head that was trained together with its network
_NO_CODES = 1  # megabyte: only labels and sides are asked for
ASKED = "tuning.json"  # what was asked for; what a killed run must be asked for again
FIXED_CODES, FIXED_MODEL = "fixed/codes", "fixed/model"  # without fine-tuning, of the same photos


def finetune(
    photos: Where, model: Where, config: FinetuneConfig | None = None, *, progress: bool = False
) -> dict[str, Any]:
    """Trains a network further on labelled photos, and says whether that is better than a classifier on fixed codes.

    The same call again goes on after the last whole epoch; it does nothing where all is done.

    Args:
        photos: Photos, as for `encode`; or a codes folder: then the photos are those that it was made from, and the
            network and its weights are those that made it.
        model: The model folder: besides what `train` puts there it gets `network.safetensors`, `codes/` (of all the
            photos, made by the new weights) and `fixed/`: codes and classifier without fine-tuning.
        config: How; the defaults are the command's.
        progress: Whether progress is shown on standard error.

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
    if folder.exists(MODEL) and not folder.exists(ASKED):
        raise InputError(f"{folder.url} holds a model that was not fine-tuned: choose another folder.")
    with folder.locked():
        folder.sweep()
        run = _fixed_codes(photos, folder, config, progress)
        with steps("finetune") if progress else nullcontext():
            divided = divide(run, replace(config.train, memory=_NO_CODES))
            if _begin(folder, run, divided, config):
                folder.delete_folder(EPOCHS)
                return folder.read_json(METRICS)
            tuned = _tune(folder, run, divided, config)
        if tuned.state.best:
            encoding = _encoding(run, config, folder.url_of(NETWORK))
            encode(run.job.images, folder.url_of(OWN_CODES), encoding, progress=progress)
        with steps("finetune") if progress else nullcontext():
            return _publish(folder, run, divided, tuned, config)


def _fixed_codes(photos: Where, folder: Folder, config: FinetuneConfig, progress: bool) -> Run:
    """The codes that fine-tuning begins with: those that were given or that an earlier call made, else made now."""
    asked, job = config.encode, read_job(open_folder(photos))
    if job is None:
        asked = replace(asked or EncodeConfig(), cluster=config.cluster)
        _check(asked.network, asked.layer, config)
        if folder.exists(ASKED):
            return _begun_with(photos, folder, asked)
        encode(photos, folder.url_of(FIXED_CODES), asked, progress=progress)
        return open_run(folder.url_of(FIXED_CODES), CODES)
    run = open_run(photos, CODES)
    made = run.job.fingerprint
    _check(made.network, made.layer, config)
    if asked is None:
        return run
    if replace(asked, weights=IMAGENET) != EncodeConfig():
        raise InputError(f"{run.folder.url} says itself how its codes were made: leave the options for that out.")
    weights, name = weights_identity(_encoding(run, replace(config, encode=None), asked.weights))
    if weights != made.weights:
        raise InputError(f"The codes in {run.folder.url} were made with other weights than {name}: leave --from out.")
    return replace(run, job=replace(run.job, weights=name))  # they may lie elsewhere now


def _begun_with(photos: Where, folder: Folder, asked: EncodeConfig) -> Run:
    """The fixed codes of an earlier call, as they are: photos that have come since take no part."""
    run = open_run(folder.url_of(FIXED_CODES), CODES)
    made = run.job.fingerprint
    precision = made.precision if asked.precision == "auto" else asked.precision
    wanted = codes_fingerprint(asked, weights_identity(asked)[0], precision)
    differing = wanted.differences(made)
    if open_source(photos, asked.root).url != run.job.images:
        differing = f"the photos (there: {run.job.images})"
    if differing:
        raise InputError(f"{folder.url} was begun otherwise, and differs in: {differing}; choose another folder.")
    return run


def _check(network: str, layer: str, config: FinetuneConfig) -> None:
    if network == NULL_NETWORK:
        raise InputError("The null network has nothing to train: choose vgg16 or vgg19.")
    unfrozen(network, layer, config.unfreeze)


def _begin(folder: Folder, run: Run, divided: Divided, config: FinetuneConfig) -> bool:
    """Trains the classifier on fixed codes, unless an earlier call did; tells whether all was done by that."""
    labelled = divided.labelled
    rows = sorted(zip(labelled.paths, labelled.labels.tolist(), labelled.digests.tolist(), strict=True))
    asked = {
        "codes": run.job.fingerprint.digest,
        "labelled photos": hashlib.sha256(repr(rows).encode()).hexdigest(),
        "min_precision": config.train.min_precision,
        "seed": config.train.seed,
    } | {name: getattr(config, name) for name in ("unfreeze", "epochs", "batch_size", "rate")}
    asked["augment"] = sorted(set(config.augment))
    if not folder.exists(ASKED):
        train(run.folder.url, folder.url_of(FIXED_MODEL), config.train)
        folder.write_json(ASKED, asked)
        return False
    before = folder.read_json(ASKED)
    if before != asked:
        others = ", ".join(name for name in asked if not isinstance(before, dict) or before.get(name) != asked[name])
        raise InputError(
            f"{folder.url} holds a fine-tuning that differs in: {others}; choose another folder, or ask as before."
        )
    return folder.exists(MODEL)


def _tune(folder: Folder, run: Run, divided: Divided, config: FinetuneConfig) -> Tuned:
    """Has an actor train. It gets no photo of the test side, and none that has vanished since it was encoded."""
    listed = _listed(run, divided.labelled.rows)
    chosen = (divided.sides != TEST) & pc.not_equal(listed["action"], GONE).to_numpy(zero_copy_only=False)
    work = Tuning(
        config=config,
        encoding=_encoding(run, config, run.job.weights),
        weights=run.job.fingerprint.weights,
        source=open_source(run.job.images, run.job.root),
        photos=listed.select(IMAGES.names).filter(pa.array(chosen)),
        targets=divided.sample.targets[chosen],
        trained=divided.sides[chosen] == TRAIN,
        head=load_model(folder.url_of(FIXED_MODEL)).head,
        folder=folder.url,
    )
    return run_alone(work, config.cluster, lambda said, stays: _LOG.info("%s", said, extra={"stays": stays}))


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
        max_pixels=sys.maxsize,  # what was small enough then is now
        cluster=config.cluster,
        **run.job.fingerprint.encoding,
    )


def _publish(folder: Folder, fixed: Run, photos: Divided, tuned: Tuned, config: FinetuneConfig) -> dict[str, Any]:
    """Judges the network and its head by the codes that they gave, compares, and writes the model folder."""
    # Where nothing got better, the weights are those that the codes at hand were made with.
    run = open_run(folder.url_of(OWN_CODES), CODES) if tuned.state.best else fixed
    before = load_model(folder.url_of(FIXED_MODEL)).head
    divided = with_codes_of(run, photos, config.train.memory)
    if len(np.unique(divided.sides)) < len(SIDES):
        raise InputError(f"Too few of the labelled photos of {run.job.images} are still there: restore them.")
    judged = judge(run, divided, Head(before.classes, before.mean, before.scale, (tuned.layer,)), config.train)
    metrics = judged.metrics
    metrics |= {"head": KIND, "heads": {}, "tuning": _tuning(folder, fixed, run, divided, judged.probabilities, tuned)}
    metrics["tuning"] |= {"unfreeze": config.unfreeze, "verdict": _verdict(metrics["tuning"])}
    metrics["seconds"] = round(60 * metrics["tuning"]["minutes"], 3)
    asked = {"kind": KIND, "from": fixed.job.weights, "unfreeze": config.unfreeze, "epochs": config.epochs}
    publish(folder, run, divided, judged, described(config.train) | asked)
    folder.delete_folder(EPOCHS)
    return metrics


def _tuning(
    folder: Folder, fixed: Run, run: Run, divided: Divided, probabilities: NDArray[np.float32], tuned: Tuned
) -> dict[str, Any]:
    """How training went, and how the outcome does against the classifier on fixed codes on the same photos."""
    place = open_folder(folder.url_of(FIXED_MODEL))
    before = place.read_json(METRICS)
    with place.open(SPLIT) as file:
        rows = pq.read_table(file, columns=["path", "label", "prediction", "side"]).to_pylist()
    was_right = {row["path"]: row["prediction"] == row["label"] for row in rows if row["side"] == SIDES[TEST]}
    right = dict(zip(divided.labelled.paths, (probabilities.argmax(1) == divided.sample.targets).tolist(), strict=True))
    both = [path for path in was_right if path in right]
    stages: Counter[str] = Counter()
    for epoch in tuned.state.epochs:
        stages.update(epoch.stages)
    seconds = sum(epoch.seconds for epoch in tuned.state.epochs)
    before_seconds = _seconds(fixed) + before["seconds"]
    if run is not fixed:
        seconds += _seconds(run)
    return {
        "from": fixed.job.weights,
        "epochs": [asdict(epoch) for epoch in tuned.state.epochs],
        "best_epoch": tuned.state.best,
        "gpus": tuned.gpus,
        "stages": {name: round(spent, 3) for name, spent in stages.items()},
        "network_share": stages["network"] / (stages["network"] + stages["wait"]),
        "minutes": (before_seconds + seconds) / 60,
        "fixed": {
            "model": place.url,
            "accuracy": before["test"]["accuracy"],
            "interval95": before["test"]["interval95"],
            "photos": before["test"]["photos"],
            "minutes": before_seconds / 60,
        },
        "comparison": compare(np.array([right[path] for path in both]), np.array([was_right[path] for path in both])),
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
    gain = f"{compared['gain']:+.1%} of {compared['photos']} held-out photos, 95% interval {low:+.1%} to {high:+.1%}"
    costs = f"{tuning['minutes']:.1f} minutes instead of {tuning['fixed']['minutes']:.1f}"
    if low > 0:
        return f"Fine-tuning paid: more labels are right than with fixed codes ({gain}), for {costs}."
    why = "fewer labels are right than with fixed codes" if high < 0 else "what it gains may as well be chance"
    if not tuning["best_epoch"]:
        why = "no epoch was better on the validation photos than the classifier on fixed codes"
    return f"Fine-tuning did not pay: {why} ({gain}), for {costs}. Use {tuning['fixed']['model']}."
