"""Commands that put photos where a file manager shows their labels: organize."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from flowers_batch.cli.app import Output, app, command
from flowers_batch.cli.options import ConfigOptions
from flowers_batch.cli.result_commands import Images, Root
from flowers_batch.config import OrganizeConfig
from flowers_batch.progress import Reporter
from flowers_batch.text import joined_visibly

_CLASSES_SHOWN = 20
_CHANGES = ("new", "moved", "replaced", "removed", "unchanged", "kept")
_LEFT_OUT = {"unknown": "with unknown labels", "failed": "that failed", "missing": "that are no longer there"}


@command(app, example="flowers-batch organize run/predictions by-class --dry-run")
def organize(
    predictions: Annotated[str, typer.Argument(help="Folder of predictions, as `predict` made it.")],
    tree: Annotated[str, typer.Argument(help="Folder for the classes' folders, outside of the photos' folder.")],
    config: Annotated[OrganizeConfig, ConfigOptions(OrganizeConfig)],
    images: Images = None,
    root: Root = None,
    *,
    reporter: Reporter,
) -> Output:
    """Make a folder per class, with links to its photos. Originals stay as they are. Run it again to update it."""
    from flowers_batch.exporting.organizing import organize as run_organize

    result = run_organize(predictions, tree, config, images=images, root=root, reporter=reporter)
    return Output(result, joined_visibly(_lines(result, dry_run=config.dry_run)))


def _lines(result: Mapping[str, Any], *, dry_run: bool) -> Iterator[str]:
    """Yield the result of `organize` as text."""
    classes = result["classes"]
    folders = "1 class" if len(classes) == 1 else f"{len(classes)} classes"
    verb = "would show" if dry_run else "shows"
    yield f"{result['tree']} {verb} {result['photos']} photos of {folders}"
    largest = sorted(classes.items(), key=lambda item: -item[1])
    yield from (f"  {count:7}  {name}" for name, count in largest[:_CLASSES_SHOWN])
    if len(classes) > _CLASSES_SHOWN:
        yield f"  and {len(classes) - _CLASSES_SHOWN} more classes"
    yield "  entries: " + ", ".join(f"{result[change]} {change}" for change in _CHANGES)
    for change in _CHANGES if dry_run else ("kept",):
        if change != "unchanged":
            yield from (
                f"    {change}: {each['entry']}, of {each['path']}" for each in result["examples"].get(change, ())
            )
    left_out = ", ".join(f"{result[reason]} {words}" for reason, words in _LEFT_OUT.items() if result[reason])
    if left_out:
        yield f"  left out: {left_out}"
