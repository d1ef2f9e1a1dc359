"""Commands that make something of photos: demo, encode, train, finetune, predict, shrink."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowers_batch.cli.app import Output, app, command
from flowers_batch.cli.metrics_rendering import training_text
from flowers_batch.cli.options import ConfigOptions
from flowers_batch.cli.rendering import demo_text, random_weights_notes, summary_text
from flowers_batch.config import EncodeConfig, FinetuneConfig, PredictConfig, ShrinkConfig, TrainConfig
from flowers_batch.progress import Reporter

if TYPE_CHECKING:
    from flowers_batch.runs.summary import Summary

_ENCODING = (
    *("weights", "network", "layer", "pool", "precision", "code_dtype", "decode", "uint8_pixels"),
    *("root", "include_hidden", "exclude", "max_pixels", "image_timeout", "max_failed_share"),
)


@command(app, example="flowers-batch demo --out demo --offline")
def demo(
    out: Annotated[Path, typer.Option(help="Folder that the demo writes to.")] = Path("demo"),
    weights: Annotated[
        str | None,
        typer.Option(
            help="`imagenet`, a .npy, .h5 or .safetensors file (a path or a URL), or `random:SEED`; by default "
            "ImageNet's if available, else random ones. A file without fully connected layers gives averaged pool5."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Download nothing: use synthetic photos and random weights.")
    ] = False,
    *,
    reporter: Reporter,
) -> Output:
    """Try all steps on a small photo archive, from encoding to the report."""
    from flowers_batch.demo.demo import run_demo

    result = run_demo(out, weights=weights, offline=offline, reporter=reporter)
    return Output(result, demo_text(result))


@command(app, example="flowers-batch encode photos run/codes --weights imagenet")
def encode(
    images: Annotated[
        str,
        typer.Argument(
            help="Folder, list, .tar or .parquet of photos (`*.tar`: several), or a folder of shrunk photos: a path or "
            "a URL."
        ),
    ],
    out: Annotated[str, typer.Argument(help="Folder for the codes: a path or a URL.")],
    config: Annotated[EncodeConfig, ConfigOptions(EncodeConfig)],
    *,
    reporter: Reporter,
) -> Output:
    """Compute the code of each photo, one row per photo. Run it again to resume."""
    from flowers_batch.runs.encode import encode as run_encode

    return _run_output("encoded", out, run_encode(images, out, config, reporter=reporter))


@command(app, example="flowers-batch train run/codes run/model --labels folder --head logistic")
def train(
    codes: Annotated[str, typer.Argument(help="Folder of codes, as `encode` made it.")],
    model: Annotated[str, typer.Argument(help="Folder for the classifier.")],
    config: Annotated[TrainConfig, ConfigOptions(TrainConfig)],
    *,
    reporter: Reporter,
) -> Output:
    """Train a classifier on the codes of labelled photos. Measures how good it is on held-out photos."""
    from flowers_batch.classifier.training import train as run_train

    metrics = run_train(codes, model, config, reporter=reporter)
    return Output(metrics, training_text(metrics, model), random_weights_notes(metrics["weights"]))


@command(app, example="flowers-batch finetune labelled run/tuned --labels folder --unfreeze fc --epochs 10")
def finetune(
    photos: Annotated[
        str,
        typer.Argument(help="Photos, as for `encode`; or a folder of codes: its photos, and the network that made it."),
    ],
    model: Annotated[str, typer.Argument(help="Folder for the network and its classifier: a path or a URL.")],
    starting_point: Annotated[
        dict[str, Any],
        ConfigOptions(
            EncodeConfig,
            only=_ENCODING,
            partial=True,
            help={
                "weights": "Weights to start from: `imagenet`, a .npy, .h5 or .safetensors file, or `random:SEED` "
                "(from scratch). The default of this and the next twelve options is that of `encode` or, for a folder "
                "of codes, what made it.",
                "layer": "The layer below the classifier.",
                "max_pixels": "Photos with more pixels are not decoded, and left out.",
                "image_timeout": "Seconds of CPU time that decoding a photo may take; others are left out.",
            },
        ),
    ],
    config: Annotated[
        FinetuneConfig,
        ConfigOptions(FinetuneConfig, without=("encode", "head", "max_memory_mb", "actors")),
    ],
    *,
    reporter: Reporter,
) -> Output:
    """Train the network itself on labelled photos. Measures whether that pays. Run it again to resume."""
    from flowers_batch.finetuning.finetune import finetune as run_finetune
    from flowers_batch.finetuning.frozen import encoding_settings_of

    if starting_point:
        config = replace(config, encode=EncodeConfig(**encoding_settings_of(photos, starting_point)))
    metrics = run_finetune(photos, model, config, reporter=reporter)
    return Output(metrics, training_text(metrics, model), random_weights_notes(metrics["tuning"]["initial_weights"]))


@command(app, example="flowers-batch predict archive run/predictions --model run/model --csv predictions.csv")
def predict(
    source: Annotated[str, typer.Argument(help="Photos, as for `encode`, or a folder of codes (needs no GPU).")],
    out: Annotated[str, typer.Argument(help="Folder for the predictions: a path or a URL.")],
    model: Annotated[str, typer.Option(help="Model folder, as `train` made it, or `imagenet`: VGG16's own classes.")],
    config: Annotated[PredictConfig, ConfigOptions(PredictConfig)],
    csv: Annotated[str | None, typer.Option(help="File for the labels, to open in a spreadsheet.")] = None,
    *,
    reporter: Reporter,
) -> Output:
    """Label each photo, one row per photo. Run it again to resume."""
    from flowers_batch.runs.predict import predict as run_predict

    return _run_output("labelled", out, run_predict(source, out, model, config, csv=csv, reporter=reporter))


@command(app, example="flowers-batch shrink photos run/pixels, and then flowers-batch encode run/pixels run/codes")
def shrink(
    images: Annotated[
        str, typer.Argument(help="Folder, list, .tar or .parquet of photos (`*.tar`: several): a path or a URL.")
    ],
    out: Annotated[str, typer.Argument(help="Folder for the pixels: a path or a URL.")],
    config: Annotated[ShrinkConfig, ConfigOptions(ShrinkConfig)],
    *,
    reporter: Reporter,
) -> Output:
    """Decode each photo once, and keep the pixels that a network sees. Other commands take the folder for the photos.

    They read it many times as fast as photos. No GPU is needed. Run it again to resume.
    """
    from flowers_batch.runs.shrink import shrink as run_shrink

    return _run_output("shrunk", out, run_shrink(images, out, config, reporter=reporter))


def _run_output(verb: str, out: str, summary: Summary) -> Output:
    value = summary.to_json()
    notes = [*random_weights_notes(summary.weights), *summary.notes]
    return Output(value, summary_text(verb, out, value), notes)
