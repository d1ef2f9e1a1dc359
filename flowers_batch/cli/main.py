"""The `flowers-batch` command. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from flowers_batch.config import AUGMENT, ClusterConfig, EncodeConfig, FinetuneConfig, PredictConfig, TrainConfig
from flowers_batch.devices import hide_startup_messages
from flowers_batch.errors import FlowersError, InputError

if TYPE_CHECKING:
    from flowers_batch.progress import Reporter

_progress_style: ContextVar[str] = ContextVar("progress_style", default="auto")
_SECONDS_TO_END = 7  # in order; what is left on the machine then ends by itself, soon after its driver

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options(
    progress: Annotated[
        str, typer.Option(help="How progress is shown: bar, lines, json, or auto: a bar on a terminal, else lines.")
    ] = "auto",
) -> None:
    """Label a photo archive of any size: VGG16 codes, a classifier trained on them, every photo a row."""
    if progress not in ("auto", "bar", "lines", "json"):
        raise InputError(f"--progress must be one of auto, bar, lines, json. Received: {progress}.")
    _progress_style.set(progress)


weights_app = typer.Typer(no_args_is_help=True, help="Weights of the network.")
app.add_typer(weights_app, name="weights")

Json = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster; default: RAY_ADDRESS, else a Ray of the run's own."),
]
Actors = Annotated[
    str,
    typer.Option(
        help="How many actors, or `auto`: one a GPU (see --actors-per-gpu), or one a node where there are no GPUs, and "
        "more as nodes join the cluster."
    ),
]
ActorsPerGpu = Annotated[
    int,
    typer.Option(
        help="How many actors share a GPU and the cores beside it: several decode more small photos with many cores."
    ),
]
Root = Annotated[str | None, typer.Option(help="What a list's paths are relative to; default: the list's folder.")]
StallTimeout = Annotated[
    float, typer.Option(help="Seconds without progress after which an actor is killed, and its shard tried again.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Photos in one pass through the network; default: what suits the device and fits its memory."),
]
ShardSize = Annotated[int, typer.Option(help="Photos in one shard: what an actor loses at most when it is killed.")]
MaxPixels = Annotated[int, typer.Option(help="Photos with more pixels are not decoded: they fail as too_large.")]
Prune = Annotated[
    bool, typer.Option("--prune", help="Remove the rows of photos that vanished, instead of marking them.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try photos again that were missing, unreadable or took too long.")
]


@app.command(epilog="Example: flowers-batch demo --out demo --offline")
def demo(
    out: Annotated[Path, typer.Option(help="Folder that the demo writes to.")] = Path("demo"),
    offline: Annotated[bool, typer.Option(help="Download nothing: draw photos, take random weights.")] = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Label a small photo archive from beginning to end, and show the report."""
    from flowers_batch.demo.demo import run_demo

    with _reporter("demo") as reporter:
        result = run_demo(out, offline=offline, reporter=reporter)
    if json_:
        _print_json(result)
        return
    print(_accuracy("test", result["test"]))
    if result["notes"]:
        print(*result["notes"], "So this accuracy says nothing about real photos.", sep="\n")
    print(f"report: {result['report']}")


@app.command(epilog="Example: flowers-batch encode photos run/codes --weights imagenet")
def encode(
    images: Annotated[
        str, typer.Argument(help="Folder, list, .tar or .parquet of photos (`*.tar`: several): a path or a URL.")
    ],
    out: Annotated[str, typer.Argument(help="Folder that gets the codes: a path or a URL.")],
    weights: Annotated[
        str, typer.Option(help="`imagenet`, a .npy, .h5 or .safetensors file (or its URL), or `random:SEED`.")
    ] = EncodeConfig.weights,
    network: Annotated[str, typer.Option(help="vgg16 or vgg19.")] = EncodeConfig.network,
    layer: Annotated[str, typer.Option(help="The layer whose values are the code.")] = EncodeConfig.layer,
    pool: Annotated[
        str | None, typer.Option(help="avg, max or flatten: what makes a row of a layer that is a map.")
    ] = EncodeConfig.pool,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = EncodeConfig.precision,
    code_dtype: Annotated[
        str, typer.Option(help="float16 or float32: the code's type on disk.")
    ] = EncodeConfig.code_dtype,
    root: Root = None,
    batch_size: BatchSize = EncodeConfig.batch_size,
    shard_size: ShardSize = EncodeConfig.shard_size,
    max_pixels: MaxPixels = EncodeConfig.max_pixels,
    prune: Prune = False,
    retry_failed: RetryFailed = False,
    actors: Actors = "auto",
    actors_per_gpu: ActorsPerGpu = ClusterConfig.actors_per_gpu,
    stall_timeout: StallTimeout = ClusterConfig.stall_timeout,
    address: Address = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Turn every photo of a folder into a row with its code; run again, it goes on where it stopped."""
    from flowers_batch.runs.encode import encode as run_encode

    cluster = ClusterConfig(address, _count(actors), stall_timeout, actors_per_gpu)
    config = EncodeConfig(
        weights=weights,
        network=network,
        layer=layer,
        pool=pool,
        precision=precision,
        code_dtype=code_dtype,
        root=root,
        batch_size=batch_size,
        shard_size=shard_size,
        max_pixels=max_pixels,
        prune=prune,
        retry_failed=retry_failed,
        cluster=cluster,
    )
    with _reporter("encode") as reporter:
        summary = run_encode(images, out, config, reporter=reporter)
    _print_summary("encoded", out, summary.to_json(), json_)


@app.command(epilog="Example: flowers-batch train run/codes run/model --labels folder --head logistic")
def train(
    codes: Annotated[str, typer.Argument(help="Codes folder, as `encode` made it.")],
    model: Annotated[str, typer.Argument(help="Folder that gets the classifier.")],
    labels: Annotated[
        list[str],
        typer.Option(
            help="`folder` (a photo's class is its folder's name), or a CSV or Parquet file path,label. "
            "May be given several times: of several labels of a photo, the last one counts."
        ),
    ] = list(TrainConfig.labels),  # noqa: B006
    head: Annotated[
        str, typer.Option(help="logistic, mlp (256 hidden units), or auto: the better one.")
    ] = TrainConfig.head,
    min_precision: Annotated[
        float, typer.Option(help="How often labels are to be right that are not said to be unknown.")
    ] = TrainConfig.min_precision,
    max_memory_mb: Annotated[
        int | None,
        typer.Option(help="Megabytes that codes may take; more are streamed. Default: half of what is free."),
    ] = TrainConfig.max_memory_mb,
    seed: Annotated[int, typer.Option(help="Decides what is drawn at random.")] = TrainConfig.seed,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Train a classifier on the codes of labelled photos, and say how good it is."""
    from flowers_batch.classifier.training import train as run_train

    with _reporter("train") as reporter:
        config = TrainConfig(tuple(labels), head, min_precision, max_memory_mb, seed)
        metrics = run_train(codes, model, config, reporter=reporter)
    _tell_random(metrics["weights"])
    if json_:
        _print_json(metrics)
    else:
        print(training_text(metrics, model))


@app.command(epilog="Example: flowers-batch finetune labelled run/tuned --unfreeze fc --epochs 10")
def finetune(
    photos: Annotated[
        str,
        typer.Argument(help="Photos, as for `encode`, or a codes folder: the photos and the network that it is of."),
    ],
    model: Annotated[str, typer.Argument(help="Folder that gets the network and its classifier: a path or a URL.")],
    weights: Annotated[
        str | None,
        typer.Option(
            help="What to begin with: `imagenet`, a .npy, .h5 or .safetensors file, or `random:SEED` (from scratch). "
            "Default: imagenet or, of a codes folder, what made it; which decides on the next six, too.",
        ),
    ] = None,
    network: Annotated[str | None, typer.Option(help="vgg16 or vgg19.")] = None,
    layer: Annotated[str | None, typer.Option(help="The layer that the classifier stands on.")] = None,
    pool: Annotated[str | None, typer.Option(help="What makes a row of a layer that is a map.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    code_dtype: Annotated[str | None, typer.Option(help="float16 or float32: the code's type on disk.")] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="Photos with more pixels are not decoded, and take no part.")
    ] = None,
    unfreeze: Annotated[
        str,
        typer.Option(
            help="What is trained: the classifier alone (head), the fully connected layers too (fc), the last "
            "convolutions too (conv5), or all."
        ),
    ] = FinetuneConfig.unfreeze,
    epochs: Annotated[int, typer.Option(help="How often all photos are gone through at most.")] = FinetuneConfig.epochs,
    labels: Annotated[
        list[str], typer.Option(help="As for `train`: `folder` or a file path,label; may be given several times.")
    ] = list(TrainConfig.labels),  # noqa: B006
    batch_size: Annotated[
        int, typer.Option(help="Photos in a step of training; fewer need less memory.")
    ] = FinetuneConfig.batch_size,
    lr_multiplier: Annotated[
        float, typer.Option(help="Times the usual learning rates.")
    ] = FinetuneConfig.lr_multiplier,
    augment: Annotated[
        str, typer.Option(help="What is varied at random, of crop, flip and colour, by commas; or none.")
    ] = ",".join(AUGMENT),
    min_precision: Annotated[
        float, typer.Option(help="How often labels are to be right that are not said to be unknown.")
    ] = TrainConfig.min_precision,
    seed: Annotated[int, typer.Option(help="Decides what is drawn at random.")] = TrainConfig.seed,
    root: Root = None,
    stall_timeout: StallTimeout = ClusterConfig.stall_timeout,
    address: Address = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Train the network itself on labelled photos, and say whether it pays; run again, it goes on where it stopped."""
    from flowers_batch.finetuning.finetune import encoding_settings_of
    from flowers_batch.finetuning.finetune import finetune as run_finetune

    encoding = {
        "weights": weights,
        "network": network,
        "layer": layer,
        "pool": pool,
        "precision": precision,
        "code_dtype": code_dtype,
        "max_pixels": max_pixels,
        "root": root,
    }
    asked: dict[str, Any] = {name: value for name, value in encoding.items() if value is not None}
    config = FinetuneConfig(
        encode=EncodeConfig(**encoding_settings_of(photos) | asked) if asked else None,
        train=TrainConfig(tuple(labels), "logistic", min_precision, None, seed),
        unfreeze=unfreeze,
        epochs=epochs,
        batch_size=batch_size,
        lr_multiplier=lr_multiplier,
        augment=() if augment == "none" else tuple(augment.split(",")),
        cluster=ClusterConfig(address, None, stall_timeout),
    )
    with _reporter("finetune") as reporter:
        metrics = run_finetune(photos, model, config, reporter=reporter)
    _tell_random(metrics["tuning"]["initial_weights"])
    if json_:
        _print_json(metrics)
    else:
        print(training_text(metrics, model))


@app.command(epilog="Example: flowers-batch predict archive run/predictions --model run/model --csv labels.csv")
def predict(
    source: Annotated[str, typer.Argument(help="Photos, as for `encode`, or a codes folder (then no GPU is needed).")],
    out: Annotated[str, typer.Argument(help="Folder that gets the predictions: a path or a URL.")],
    model: Annotated[str, typer.Option(help="Model folder, as `train` made it, or `imagenet`: VGG16's own classes.")],
    weights: Annotated[
        str | None, typer.Option(help="Where the model's weights lie, if no longer where it says.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="How many of the likeliest labels are kept.")] = PredictConfig.top_k,
    csv: Annotated[str | None, typer.Option(help="File that gets the labels for a spreadsheet.")] = None,
    root: Root = None,
    batch_size: BatchSize = PredictConfig.batch_size,
    shard_size: ShardSize = PredictConfig.shard_size,
    max_pixels: MaxPixels = PredictConfig.max_pixels,
    prune: Prune = False,
    retry_failed: RetryFailed = False,
    actors: Actors = "auto",
    actors_per_gpu: ActorsPerGpu = ClusterConfig.actors_per_gpu,
    stall_timeout: StallTimeout = ClusterConfig.stall_timeout,
    address: Address = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Label every photo of a folder; run again, it goes on where it stopped."""
    from flowers_batch.runs.predict import predict as run_predict

    config = PredictConfig(
        weights=weights,
        top_k=top_k,
        root=root,
        batch_size=batch_size,
        shard_size=shard_size,
        max_pixels=max_pixels,
        prune=prune,
        retry_failed=retry_failed,
        cluster=ClusterConfig(address, _count(actors), stall_timeout, actors_per_gpu),
    )
    with _reporter("predict") as reporter:
        summary = run_predict(source, out, model, config, csv=csv, reporter=reporter)
    _print_summary("labelled", out, summary.to_json(), json_)


@app.command(epilog="Example: flowers-batch label-issues run/model --out issues.csv")
def label_issues(
    model: Annotated[str, typer.Argument(help="Model folder, as `train` made it.")],
    out: Annotated[str | None, typer.Option(help="CSV file that gets them, ready to correct.")] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """List labelled photos whose label looks wrong, the surest first."""
    from flowers_batch.classifier.suggestions import label_issues as find_issues

    with _reporter("label-issues") as reporter:
        rows = find_issues(model, out, reporter=reporter)
    if json_:
        _print_json({"label_issues": rows})
        return
    for row in rows[:_SHOWN]:
        print(f"{row['probability']:6.1%}  {row['label']} -> {row['suggested']}  {row['path']}")
    _tell_rest(len(rows), "labels look wrong", out)


@app.command(epilog="Example: flowers-batch suggest run/predictions --count 100 --out labels.csv")
def suggest(
    predictions: Annotated[str, typer.Argument(help="Folder of predictions.")],
    count: Annotated[int, typer.Option("--count", help="How many photos.")] = 100,
    out: Annotated[str | None, typer.Option(help="CSV file that gets them, ready to fill in.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option(help="File of labels given since the training: their photos have one.")
    ] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """List the photos without a label that are most worth one: uncertain, and different from each other."""
    from flowers_batch.classifier.suggestions import suggest as find_photos

    rows = find_photos(predictions, count, out, labels or ())
    if json_:
        _print_json({"suggested": rows})
        return
    for row in rows[:_SHOWN]:
        print(f"{row['probability']:6.1%}  {row['prediction']}  {row['path']}")
    _tell_rest(len(rows), "photos are most worth a label", out)


@app.command(epilog="Example: flowers-batch export run/model flowers.onnx --format onnx")
def export(
    model: Annotated[str, typer.Argument(help="Model folder, as `train` made it.")],
    out: Annotated[str, typer.Argument(help="What is written: a folder for savedmodel, else a file.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="savedmodel (takes image files' bytes), onnx (a decoded photo of any size) or keras (224x224 pixels).",
        ),
    ] = "savedmodel",
    weights: Annotated[
        str | None, typer.Option(help="Where the model's weights lie, if no longer where it says.")
    ] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Write network and classifier as one model that runs without this package."""
    from flowers_batch.exporting.export import export as run_export

    path = run_export(model, out, format_, weights)
    if json_:
        _print_json({"path": path})
    else:
        print(path)


@app.command(epilog="Example: flowers-batch report run/predictions --out report.html")
def report(
    folder: Annotated[str, typer.Argument(help="Folder of predictions, of codes, or of a model.")],
    out: Annotated[str | None, typer.Option(help="The page's file; default: report.html in the folder.")] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Write one HTML page that shows how good the labels are, and what could not be read."""
    from flowers_batch.pages.report.page import report as write_report

    page = write_report(folder, out)
    if json_:
        _print_json({"report": page})
    else:
        print(f"report: {page}")


@app.command(epilog="Example: flowers-batch review run/predictions --labels labels.csv")
def review(
    predictions: Annotated[str, typer.Argument(help="Folder of predictions.")],
    labels: Annotated[
        str, typer.Option(help="CSV file that gets the labels, each as it is given; `train` takes it by --labels.")
    ] = "labels.csv",
    port: Annotated[int, typer.Option(help="Of this machine; default: a free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Open no browser: only print the page's address.")] = False,
    debug: Debug = False,
) -> None:
    """Look at labels and correct them by key, in a page that this machine serves to itself; end it with Ctrl-C."""
    from functools import partial

    from flowers_batch.pages.review.server import review as serve

    serve(predictions, labels, port, open_browser=not no_open, announce=partial(print, flush=True))


@app.command(epilog="Example: flowers-batch verify run/predictions --deep")
def verify(
    folder: Annotated[str, typer.Argument(help="Folder of an encode or predict run.")],
    deep: Annotated[bool, typer.Option("--deep", help="Read and encode a sample of the images again, too.")] = False,
    seed: Annotated[int, typer.Option(help="Decides on the sample.")] = 0,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Prove that a folder is whole: each image one row, every count true. Exits with 1 where it is not."""
    from flowers_batch.runs.verify import verify as run_verify

    with _reporter("verify") as reporter:
        found = run_verify(folder, deep=deep, seed=seed, reporter=reporter)
    counts = {"images": found.images, "rows": found.rows, "ok": found.ok, "failed": found.failed}
    if deep:
        counts["sampled"] = found.sampled
    if json_:
        _print_json(counts | {"complete": found.is_complete, "problems": found.problems})
    else:
        print(f"{folder}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        print("\n".join(found.problems) if found.problems else "whole: each image is one row, and every count is true")
    raise typer.Exit(0 if found.is_complete else 1)


@weights_app.command("fetch", epilog="Example: flowers-batch weights fetch --network vgg16")
def weights_fetch(
    network: Annotated[str, typer.Option(help="vgg16 or vgg19.")] = EncodeConfig.network,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Download the ImageNet weights to this machine's cache, unless they are there."""
    from tensorflow_vgg.download import fetch
    from tensorflow_vgg.weights import PUBLISHED

    if network not in PUBLISHED:
        raise InputError(f"--network must be one of {', '.join(PUBLISHED)}. Received: {network}.")
    path = fetch(PUBLISHED[network])
    if json_:
        _print_json({"path": str(path)})
    else:
        print(path)


@weights_app.command("convert", epilog="Example: flowers-batch weights convert vgg16.npy vgg16.safetensors")
def weights_convert(
    source: Annotated[str, typer.Argument(help="Weights (.npy, .h5, .safetensors; a path or URL), or random:SEED.")],
    target: Annotated[str, typer.Argument(help="File to write, in the format that its name ends in: a path or URL.")],
    dtype: Annotated[str, typer.Option(help="float32, or float16 to halve the file.")] = "float32",
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Write the weights of one file into another format."""
    from flowers_batch.encoding.weights import convert_weights

    convert_weights(source, target, dtype)
    if json_:
        _print_json({"path": target})
    else:
        print(target)


@weights_app.command("check", epilog="Example: flowers-batch weights check vgg16.npy")
def weights_check(
    file: Annotated[str, typer.Argument(help="Weights file (.npy, .h5 or .safetensors): a path or URL.")],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Read a weights file from beginning to end, and say what it is."""
    from flowers_batch.encoding.weights import weights_on_this_machine
    from tensorflow_vgg.weights import check

    found = check(weights_on_this_machine(file))
    if json_:
        _print_json(asdict(found))
        return
    print(f"{found.path}: {found.network}, {found.known or 'not a published file'}")
    for name, shapes in found.layers.items():
        print(f"  {name:8} " + ", ".join("x".join(map(str, shape)) for shape in shapes))
    print(f"  sha256   {found.sha256}\n  identity {found.identity}")


@contextmanager
def _reporter(verb: str) -> Iterator[Reporter]:
    """Report on standard error, where Ray's prints go, too: standard output is the result's."""
    from flowers_batch.progress import console_reporter

    with redirect_stdout(sys.stderr), console_reporter(verb, _progress_style.get()) as reporter:
        yield reporter


def _count(actors: str) -> int | None:
    """What `--actors` says: a number, or None for `auto`."""
    if actors == "auto":
        return None
    try:
        return int(actors)
    except ValueError:
        raise InputError(f"--actors must be `auto` or a number. Received: {actors}.") from None


def training_text(metrics: dict[str, Any], model: str) -> str:
    """What a person wants to know of a training."""
    classes, test, split = metrics["classes"], metrics["test"], metrics["split"]
    trained = "fine-tuned the network" if "tuning" in metrics else f"trained {metrics['head']}"
    lines = [
        f"{trained} on {metrics['photos']['train']} photos of {len(classes)} classes: {model}",
        *(f"  {_accuracy(side, metrics[side])}" for side in ("validation", "test")),
    ]
    if split["accuracy_without_groups"] is not None:
        lines.append(
            f"  {split['grouped_photos']} photos are copies of others, or nearly: they were kept on one side "
            f"(with copies on both, the accuracy would have seemed {split['accuracy_without_groups']:.1%})"
        )
    if split["moved"]:
        lines.append(f"  {split['moved']} photos changed sides since the last training, with their copies")
    calibration, unknown = metrics["calibration"], metrics["unknown"]
    lines.append(
        f"  certainty is off by {calibration['ece_after']:.1%} in the mean ({calibration['ece_before']:.1%} before "
        f"it was calibrated by a temperature of {calibration['temperature']:.2f})"
    )
    if unknown["precision"] is None:
        lines.append(
            f"  no label is sure enough to be right {unknown['min_precision']:.0%} of the time: all are marked unknown "
            "(ask for less with --min-precision)"
        )
    else:
        lines.append(
            f"  labels below {unknown['threshold']:.1%} are marked unknown: {unknown['coverage']:.0%} of the "
            f"validation photos are above it, and {unknown['precision']:.1%} of those are right"
        )
    if "tuning" in metrics:
        lines += _tuning_lines(metrics["tuning"])
    if len(metrics["learning_curve"]) > 1:
        lines.append("  would more labels help? test accuracy by labels used:")
        lines += [
            f"    {point['share']:4.0%} ({point['photos']} photos) {point['accuracy']:6.1%}"
            for point in metrics["learning_curve"]
        ]
    width = max(map(len, [*classes, "class"]))
    lines.append("  the test photos, by class; then how often each class (row) was taken for which (column)")
    lines.append(f"    {'class':<{width}} photos precision recall     f1")
    for name, row in zip(classes, test["confusion_matrix"], strict=True):
        of = test["per_class"][name]
        lines.append(
            f"    {name:<{width}} {of['photos']:6d} {of['precision']:9.1%} {of['recall']:6.1%} {of['f1']:6.1%}  "
            + " ".join(f"{count:5d}" for count in row)
        )
    if metrics["conflicts"]:
        lines.append(f"  {len(metrics['conflicts'])} sets of equal photos have different labels, such as:")
        lines += [
            "    " + ", ".join(f"{path} ({label})" for path, label in labels.items())
            for labels in metrics["conflicts"][:_CONFLICTS]
        ]
    for name, words in (
        ("without_code", "labelled photos could not be read, and are left out"),
        ("unknown_paths", "labels are for paths that the codes do not have, such as "),
        ("empty_labels", "rows of the labels' files have no label"),
    ):
        if metrics[name]:
            examples = ", ".join(metrics["unknown_examples"][:3]) if name == "unknown_paths" else ""
            lines.append(f"  {metrics[name]} {words}{examples}")
    return "\n".join(lines)


def _tuning_lines(tuning: dict[str, Any]) -> Iterator[str]:
    """What a person wants to know of a fine-tuning."""
    initial_weights, best_epoch = tuning["initial_weights"], tuning["best_epoch"]
    yield f"  {tuning['unfreeze']} was trained, from {initial_weights}; the best epoch is {best_epoch}:"
    yield "    epoch  minutes   loss accuracy  on validation photos: loss accuracy"
    for epoch in tuning["epochs"]:
        trained = f"{epoch['loss']:6.3f} {epoch['accuracy']:8.1%}" if epoch["epoch"] else f"{'before':>15}"
        yield (
            f"    {epoch['epoch']:5d} {epoch['seconds'] / 60:8.1f} {trained} "
            f"{epoch['validation_loss']:27.3f} {epoch['validation_accuracy']:8.1%}"
        )
    shares, compared = tuning["stage_shares"], tuning["comparison"]
    yield (
        f"  of the time, the network took {shares['network']:.0%}, waiting for photos {shares['wait']:.0%}, "
        f"and saving epochs {shares['save']:.0%}"
    )
    yield "  on the same held-out photos, copies counted once:"
    yield f"    {_accuracy('with frozen codes,', compared['before'])}"
    yield f"    {_accuracy('fine-tuned,', compared['after'])}"
    yield f"  {tuning['verdict']}"


def _accuracy(side: str, figures: dict[str, Any]) -> str:
    low, high = figures["interval95"]
    return (
        f"{side} accuracy: {figures['accuracy']:.1%} of {figures['photos']} photos "
        f"(95% interval {low:.1%} to {high:.1%})"
    )


def _tell_rest(count: int, what: str, out: str | None) -> None:
    """What follows on a list of which only the first rows were shown."""
    shown = f"; the first {_SHOWN} are shown" if count > _SHOWN else ""
    where = f"all are in {out}: give it to `train` by --labels once it is edited" if out else "--out FILE writes all"
    print(f"{count} {what}{shown}; {where}" if count else f"no {what}")


def _tell_random(weights: str) -> None:
    if weights.startswith("random:"):
        note = f"The weights are {weights}, never trained: results say nothing about what real ones give."
        print(note, file=sys.stderr)


_SHOWN = 20  # rows of a list; the file has all
_CONFLICTS = 5  # that are shown; metrics.json has all
_BAR = 40  # characters of the chart's longest bar
_ASIDE = {
    "missing": "missing, and kept until --prune",
    "duplicates": "with the bytes of another",
    "repeated": "named more than once",
}


def _print_summary(verb: str, out: str, summary: dict[str, Any], as_json: bool) -> None:
    _tell_random(summary["weights"])
    for note in summary["notes"]:
        print(note, file=sys.stderr)
    if as_json:
        _print_json(summary)
        return
    print(
        f"{verb} {summary['images']} images: {summary['ok']} ok, {summary['failed']} failed, "
        f"{summary['resumed']} done before, {summary['ignored']} other files ignored"
    )
    changes = ", ".join(f"{count} {name}" for name, count in summary["changes"].items() if count)
    if changes and summary["changes"].keys() > {"new"}:
        print(f"  since the last listing: {changes}")
    others = [f"{summary[name]} {words}" for name, words in _ASIDE.items() if summary[name]]
    if others:
        print(f"  {', '.join(others)}")
    if summary["reasons"]:
        print("  failed: " + ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items()))
    if summary["stages"]:
        print(f"  {summary['seconds']:.1f} s, {summary['images_per_second']:.1f} images/s once started")
        print(*_chart(summary["stage_rates"], summary["stage_shares"]), sep="\n")
    print(f"  {out}")


def _chart(rates: dict[str, float | None], shares: dict[str, float]) -> Iterator[str]:
    """What limits a run: each stage's images/s alone, and a bar of the time in which it was at work."""
    yield "  by stage: images/s alone, and at work for"
    for stage, share in shares.items():
        rate = rates[stage]
        told = f"{rate:10,.1f}" if rate else f"{'':10}"
        yield f"    {stage:8}{told}  {share:4.0%} {'#' * round(share * _BAR)}".rstrip()


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and ends the process with its exit code: 0 done, 1 the run failed, 2 bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    caught: list[int] = []

    def stop(number: int, frame: object) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)  # whoever asks twice does not wait for an orderly end
        # An exit that is asked for while Python is in a callback is lost, and Ray may take its time to end.
        signal.signal(signal.SIGALRM, lambda *_: os._exit(128 + number))
        signal.alarm(_SECONDS_TO_END)
        caught.append(number)
        print("Stopped. Called again, encode, finetune and predict go on where they were.", file=sys.stderr)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    hide_startup_messages()
    try:
        app(arguments, prog_name="flowers-batch")
    except SystemExit:
        # Ray turns whatever exit is asked for while it waits into one with code 1.
        if caught:
            sys.exit(128 + caught[0])
        raise
    except (FlowersError, OSError) as error:
        _fail(error, error.exit_code if isinstance(error, FlowersError) else 1, "--debug" in arguments)
    except ValueError as error:
        from tensorflow_vgg.formats import WeightsError

        if not isinstance(error, WeightsError):
            raise
        _fail(error, 2, "--debug" in arguments)


def _fail(error: Exception, code: int, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    print(f"error: {_sentence(error)}", file=sys.stderr)
    sys.exit(code)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}."
    return _with_options(str(error))


def _with_options(sentence: str) -> str:
    """Return a sentence with the command's options in place of Python's settings: --shard-size for `shard_size`."""
    options: dict[str, str] = {}
    commands = [typer.main.get_command(app)]
    while commands:
        command: Any = commands.pop()
        commands += getattr(command, "commands", {}).values()
        options |= {each.name.rstrip("_"): each.opts[0] for each in command.params if each.opts[0].startswith("--")}
    return re.sub(r"`(\w+)`", lambda name: options.get(name[1], name[0]), sentence)
