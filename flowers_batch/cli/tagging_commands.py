"""Commands on labels where other programs see them: tag, keywords."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowers_batch.cli.app import Output, app, command
from flowers_batch.cli.options import ConfigOptions
from flowers_batch.cli.rendering import ROWS_SHOWN
from flowers_batch.cli.result_commands import Images, Root
from flowers_batch.config import ArchiveConfig, TagConfig
from flowers_batch.progress import Reporter
from flowers_batch.text import joined_visibly

if TYPE_CHECKING:
    from flowers_batch.exporting.tagging import Tagging

_FAILURES_SHOWN = 5


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
    return Output(
        result.to_json(), joined_visibly(_tagging_lines(result, config)), exit_code=0 if result.is_complete else 1
    )


def _tagging_lines(result: Tagging, config: TagConfig) -> Iterator[str]:
    for example in result.examples:
        label = f"  {example['label']} {example['probability']:.1%}" if example["label"] else ""
        yield f"{example['change']}  {example['sidecar']}{label}"
    counts = [f"{count} {name}" for name, count in result.sidecars.items()]
    certain = "" if config.remove else f"{result.labelled} of "
    labels = "" if config.remove else " have a label that is certain"
    yield f"{certain}{result.photos} photos{labels}; sidecars: {', '.join(counts)}"
    for kind, count in result.failed.items():
        first = result.failures[kind]
        yield f"  {count} not changed ({kind}), such as {first['sidecar']}: {first['message']}"
    if result.beside:
        yield (
            f"  {result.beside} created beside a sidecar with the other name: programs read one of both, and --sidecar "
            "says which is written"
        )
    if result.dry_run:
        yield "nothing was written, since this was a dry run"


@command(app, example="flowers-batch keywords photos --csv keywords.csv")
def keywords(
    source: Annotated[str, typer.Argument(help="Photos, as for `encode`.")],
    config: Annotated[ArchiveConfig, ConfigOptions(ArchiveConfig, only=("root", "include_hidden", "exclude"))],
    csv: Annotated[str | None, typer.Option(help="File for all keywords, to open in a spreadsheet.")] = None,
    *,
    reporter: Reporter,
) -> Output:
    """List the keywords in photos and in their XMP sidecars, those of most photos first. `tag`'s own do not count."""
    from flowers_batch.classifier.keyword_counts import keywords as list_keywords

    found = list_keywords(source, config, csv=csv, reporter=reporter)
    return Output(found, joined_visibly(_keywords_lines(found, csv)))


def _keywords_lines(found: Mapping[str, Any], csv: str | None) -> Iterator[str]:
    rows = found["keywords"]
    if rows:
        yield " photos  keyword"
    yield from (f"{row['photos']:7}  {row['keyword']}" for row in rows[:ROWS_SHOWN])
    photos = f"{found['with_keywords']} of {found['photos']} photos"
    shown = f"; the first {ROWS_SHOWN} are shown" if len(rows) > ROWS_SHOWN else ""
    where = f"; all are in {csv}" if csv else "; --csv FILE writes all" if shown else ""
    yield f"{len(rows)} keyword{'' if len(rows) == 1 else 's'} on {photos}{shown}{where}"
    if found["uncounted"]:
        yield f"{found['uncounted']} more were not counted: there are too many different ones"
    if found["unread"]:
        yield f"the keywords of {found['unread']} photos could not all be read:"
        yield from (f"  {each['path']}: {each['message']}" for each in found["failures"][:_FAILURES_SHOWN])
    if len(rows) > 1:
        names = ",".join(row["keyword"] for row in rows[:2])
        yield f"to train on keywords: flowers-batch train CODES MODEL --labels xmp --classes {names}"
