"""Commands that compare photos by their codes: similar, duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from flowers_batch.cli.app import Output, app, command
from flowers_batch.cli.rendering import ROWS_SHOWN
from flowers_batch.progress import Reporter
from flowers_batch.text import joined_visibly

_Codes = Annotated[str, typer.Argument(help="Folder of codes, as `encode` made it.")]


@command(app, example="flowers-batch similar run/codes daisy/one.jpg --count 50 --csv similar.csv")
def similar(
    codes: _Codes,
    photos: Annotated[
        list[str],
        typer.Argument(
            help="Photos to compare with: paths in the archive or, of photos that are not in it, files, which are "
            "encoded. Of several, the mean of their codes is compared."
        ),
    ],
    count: Annotated[int, typer.Option(help="Number of photos to find.")] = 20,
    csv: Annotated[str | None, typer.Option(help="File for these photos, to open in a spreadsheet.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="The weights' file, to encode photos with; needed if moved, or if the folder names another store or "
            "belongs to another user."
        ),
    ] = None,
    *,
    reporter: Reporter,
) -> Output:
    """List the photos that look most like others. The first use on a large archive makes an index beside the codes."""
    from flowers_batch.runs.similar import similar as find_similar

    rows = find_similar(codes, photos, count, csv=csv, weights=weights, reporter=reporter)
    lines = [f"{row['similarity']:.4f}  {row['path']}" for row in (rows if csv is None else rows[:ROWS_SHOWN])]
    where = [] if csv is None else [f"{len(rows)} photos are in {csv}"]
    return Output({"similar": rows}, joined_visibly([*lines, *where]))


@command(app, example="flowers-batch duplicates run/codes --csv duplicates.csv")
def duplicates(
    codes: _Codes,
    csv: Annotated[str | None, typer.Option(help="File for all groups, to open in a spreadsheet.")] = None,
    *,
    reporter: Reporter,
) -> Output:
    """List groups of near-duplicates, the photo to keep first. Nothing is deleted."""
    from flowers_batch.search.duplicates import duplicates as find_duplicates

    groups = find_duplicates(codes, csv=csv, reporter=reporter)
    return Output({"duplicates": groups}, joined_visibly(_duplicates_lines(groups, csv)))


def _duplicates_lines(groups: Sequence[Mapping[str, Any]], csv: str | None) -> Iterator[str]:
    for group in groups[:ROWS_SHOWN]:
        yield f"keep {_described(group['keep'])}"
        yield from (f"     {_described(photo)}" for photo in group["others"])
    if not groups:
        yield "no near-duplicates were found"
        return
    others = sum(len(group["others"]) for group in groups)
    found = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
    photos = "1 photo" if others == 1 else f"{others} photos"
    kept = "the one" if len(groups) == 1 else "those"
    shown = f"; the first {ROWS_SHOWN} are shown" if len(groups) > ROWS_SHOWN else ""
    where = f"; all are in {csv}" if csv else "; --csv FILE writes all" if shown else ""
    yield f"{found} of near-duplicates, with {photos} besides {kept} to keep{shown}{where}"


def _described(photo: Mapping[str, Any]) -> str:
    pair = f" with {', '.join(photo['pair'])}" if photo["pair"] else ""
    return f"{photo['path']}{pair}  {photo['width']}x{photo['height']}, {photo['bytes']} bytes"
