"""Commands on what a run has made: label-issues, suggest, export, report, review, verify."""

from __future__ import annotations

from typing import Annotated

import typer

from flowers_batch.cli.app import Output, app, command
from flowers_batch.cli.rendering import ROWS_SHOWN, list_text, verification_text
from flowers_batch.progress import Reporter
from flowers_batch.text import visible

_FollowLinks = Annotated[
    bool,
    typer.Option(
        "--follow-links",
        help="Show photos outside the photos' folder that links in it lead to, as in a download cache.",
    ),
]
_MOVED = "needed if moved, or if the folder names another store or belongs to another user"
Images = Annotated[str | None, typer.Option(help=f"The photos, as for `encode`; {_MOVED}.")]
Root = Annotated[str | None, typer.Option(help=f"The folder that the paths in a list are relative to; {_MOVED}.")]
Model = Annotated[str | None, typer.Option(help=f"The model folder; {_MOVED}.")]
Codes = Annotated[str | None, typer.Option(help=f"The folder of codes; {_MOVED}.")]


@command(app, "label-issues", example="flowers-batch label-issues run/model --out issues.csv")
def label_issues(
    model: Annotated[str, typer.Argument(help="Model folder, as `train` made it.")],
    out: Annotated[str | None, typer.Option(help="CSV file for these labels, ready to be corrected.")] = None,
    codes: Codes = None,
    *,
    reporter: Reporter,
) -> Output:
    """List labels that are probably wrong, the least probable labels first."""
    from flowers_batch.classifier.label_issues import label_issues as find_issues

    rows = find_issues(model, out, codes=codes, reporter=reporter)
    lines = [
        f"{row['label']} {row['label_probability']:.1%} -> {row['suggested']} {row['probability']:.1%}  {row['path']}"
        for row in rows[:ROWS_SHOWN]
    ]
    return Output({"label_issues": rows}, list_text(lines, len(rows), "labels look wrong", "no label looks wrong", out))


@command(app, example="flowers-batch suggest run/predictions --count 100 --out labels.csv")
def suggest(
    folder: Annotated[str, typer.Argument(help="Folder of predictions or, if there is no classifier yet, of codes.")],
    count: Annotated[int, typer.Option(help="Number of photos.")] = 100,
    out: Annotated[
        str | None, typer.Option(help="CSV file for these photos, whose labels are to be filled in.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="File of labels that were given already, whose photos are left out: of predictions, those given since "
            "the training. May be given several times."
        ),
    ] = None,
    model: Model = None,
    codes: Codes = None,
    *,
    reporter: Reporter,
) -> Output:
    """List the photos that are most worth a label. They differ from each other, are typical, and uncertain."""
    from flowers_batch.classifier.suggestions import suggest as find_photos

    rows = find_photos(folder, count, out, labels or (), model=model, codes=codes, reporter=reporter)
    lines = [
        f"{row['probability']:6.1%}  {row['prediction']}  {row['path']}" if "prediction" in row else row["path"]
        for row in rows[:ROWS_SHOWN]
    ]
    none = "no photo without a label is left"
    return Output({"suggested": rows}, list_text(lines, len(rows), "photos are most worth a label", none, out))


@command(app, example="flowers-batch export run/model flowers.onnx --format onnx")
def export(
    model: Annotated[str, typer.Argument(help="Model folder, as `train` made it.")],
    out: Annotated[str, typer.Argument(help="Path of the exported model: a folder for savedmodel, else a file.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="savedmodel (takes the bytes of JPEG, PNG, GIF, BMP and WebP files, and turns them upright), onnx (a "
            "decoded, upright photo of any size) or keras (224x224 pixels of upright photos).",
        ),
    ] = "savedmodel",
    weights: Annotated[
        str | None, typer.Option(help="The weights' file, if it is no longer where the model says.")
    ] = None,
) -> Output:
    """Write network and classifier as one model. It runs without this package."""
    from flowers_batch.exporting.export import export as run_export

    path = run_export(model, out, format_, weights)
    return Output({"path": path}, path)


@command(app, example="flowers-batch report run/predictions --out report.html")
def report(
    folder: Annotated[str, typer.Argument(help="Folder of predictions, of codes, or of a model.")],
    out: Annotated[str | None, typer.Option(help="The page's file; by default report.html in the folder.")] = None,
    follow_links: _FollowLinks = False,
    images: Images = None,
    root: Root = None,
    model: Model = None,
    codes: Codes = None,
    *,
    reporter: Reporter,
) -> Output:
    """Write an HTML page on the quality of labels. It also lists photos that could not be read."""
    from flowers_batch.pages.report.page import report as write_report

    page = write_report(
        folder, out, images=images, root=root, model=model, codes=codes, follow_links=follow_links, reporter=reporter
    )
    return Output({"report": page}, f"report: {page}")


@command(
    app,
    example="flowers-batch review run/codes --labels labels.csv, which needs no label to begin with; or flowers-batch "
    "review run/predictions --labels labels.csv",
    has_result=False,
)
def review(
    folder: Annotated[str, typer.Argument(help="Folder of codes, which needs no labels, or of predictions.")],
    labels: Annotated[
        str, typer.Option(help="CSV file that each label is added to as it is given; pass it to `train` with --labels.")
    ] = "labels.csv",
    images: Images = None,
    root: Root = None,
    model: Model = None,
    codes: Codes = None,
    min_precision: Annotated[
        float | None,
        typer.Option(
            help="Precision that labels must reach with a confidence of 95% to count as certain; by default 0.95, or "
            "that of the predictions' classifier."
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.")] = 0,
    follow_links: _FollowLinks = False,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Open no browser: only print the page's address, which is secret.")
    ] = False,
    *,
    reporter: Reporter,
) -> None:
    """Give, check and correct labels in the browser. The page is served to this machine only; end it with Ctrl-C."""
    from flowers_batch.pages.review.server import review as serve

    serve(
        folder,
        labels,
        port,
        images=images,
        root=root,
        model=model,
        codes=codes,
        min_precision=min_precision,
        follow_links=follow_links,
        open_browser=not no_open,
        announce=lambda line: print(visible(line), flush=True),
        reporter=reporter,
    )


@command(app, example="flowers-batch verify run/predictions --deep")
def verify(
    folder: Annotated[str, typer.Argument(help="Folder of an encode, predict or shrink run.")],
    deep: Annotated[bool, typer.Option("--deep", help="Also read and encode a sample of the images again.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    images: Images = None,
    root: Root = None,
    weights: Annotated[str | None, typer.Option(help=f"The weights' file; {_MOVED}.")] = None,
    model: Model = None,
    *,
    reporter: Reporter,
) -> Output:
    """Prove that a folder is complete. Each image has one row, and all counts are right; exits with 1 if not."""
    from flowers_batch.runs.verify import verify as run_verify

    found = run_verify(
        folder, deep=deep, seed=seed, images=images, root=root, weights=weights, model=model, reporter=reporter
    )
    counts = {"images": found.images, "rows": found.rows, "ok": found.ok, "failed": found.failed}
    if deep:
        counts["sampled"] = found.sampled
    value = counts | {"complete": found.is_complete, "problems": found.problems}
    text = verification_text(folder, counts, found.problems)
    return Output(value, text, exit_code=0 if found.is_complete else 1)
