"""Commands on weights files: weights fetch, convert, check."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from flowers_batch.cli.app import Output, app, command
from flowers_batch.cli.rendering import weights_text
from flowers_batch.config import EncodeConfig
from flowers_batch.errors import InputError

weights = typer.Typer(no_args_is_help=True, help="Fetch, convert or check the network's weights.")
app.add_typer(weights, name="weights")


@command(weights, example="flowers-batch weights fetch --network vgg16")
def fetch(network: Annotated[str, typer.Option(help="vgg16 or vgg19.")] = EncodeConfig.network) -> Output:
    """Download the ImageNet weights into the local cache. Does nothing if they are there."""
    from tensorflow_vgg.download import fetch as download
    from tensorflow_vgg.weights import PUBLISHED

    if network not in PUBLISHED:
        raise InputError(f"`network` must be one of {', '.join(PUBLISHED)}. Received: {network}.")
    path = str(download(PUBLISHED[network]))
    return Output({"path": path}, path)


@command(weights, example="flowers-batch weights convert vgg16.npy vgg16.safetensors")
def convert(
    source: Annotated[str, typer.Argument(help="Weights (.npy, .h5, .safetensors; a path or URL), or random:SEED.")],
    target: Annotated[str, typer.Argument(help="File to write, in the format that its name ends in: a path or URL.")],
    dtype: Annotated[str, typer.Option(help="float32, or float16 to halve the file.")] = "float32",
) -> Output:
    """Write the weights of one file in another format."""
    from flowers_batch.encoding.weights import convert_weights

    convert_weights(source, target, dtype)
    return Output({"path": target}, target)


@command(weights, example="flowers-batch weights check vgg16.npy")
def check(
    file: Annotated[str, typer.Argument(help="Weights file (.npy, .h5 or .safetensors): a path or URL.")],
) -> Output:
    """Read a weights file, and show what it holds."""
    from flowers_batch.encoding.weights import weights_on_this_machine
    from tensorflow_vgg.weights import check as check_file

    found = check_file(weights_on_this_machine(file))
    return Output(asdict(found), weights_text(found))
