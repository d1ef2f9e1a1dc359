"""Commands that bring labels to where other programs read them: tag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from flowers_batch.cli.app import Output, app, command
from flowers_batch.cli.options import ConfigOptions
from flowers_batch.cli.result_commands import Images, Root
from flowers_batch.config import TagConfig
from flowers_batch.progress import Reporter
from flowers_batch.text import joined_visibly

if TYPE_CHECKING:
    from flowers_batch.exporting.tagging import Tagging


@command(app, example="flowers-batch tag run/predictions --dry-run, and then without --dry-run")
def tag(
    predictions: Annotated[str, typer.Argument(help="Folder of predictions, as `predict` made it.")],
    config: Annotated[TagConfig, ConfigOptions(TagConfig)],
    images: Images = None,
    root: Root = None,
    *,
    reporter: Reporter,
) -> Output:
    """Write labels as keywords into XMP sidecars beside the photos, for photo programs. No photo is opened.

    Keywords that people gave stay. Exits with 1 if a sidecar could not be changed.
    """
    from flowers_batch.exporting.tagging import tag as tag_photos

    result = tag_photos(predictions, config, images=images, root=root, reporter=reporter)
    return Output(result.to_json(), joined_visibly(_tagging_lines(result)), exit_code=0 if result.is_complete else 1)


def _tagging_lines(result: Tagging) -> Iterator[str]:
    for example in result.examples:
        label = f"  {example['label']} {example['probability']:.1%}" if example["label"] else ""
        yield f"{example['change']}  {example['sidecar']}{label}"
    counts = [f"{getattr(result, name)} {name}" for name in ("created", "changed", "deleted", "unchanged")]
    would = "would be " if result.dry_run else ""
    yield f"{result.labelled} of {result.photos} photos have a label; sidecars {would}{', '.join(counts)}"
    for kind, count in result.failed.items():
        first = result.failures[kind]
        yield f"  {count} stay as they are ({kind}), such as {first['sidecar']}: {first['message']}"
    if result.dry_run:
        yield "nothing was written: run it without --dry-run"
