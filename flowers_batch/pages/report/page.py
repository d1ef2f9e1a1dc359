"""Write one HTML page that shows how good labels are, where they fail, and what could not be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flowers_batch.classifier.model_folder import MODEL
from flowers_batch.dataset.job import read_job
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.errors import InputError
from flowers_batch.pages import charts
from flowers_batch.pages.report.content import collect_content
from flowers_batch.pages.report.limits import DEFAULT_LIMITS, PageLimits
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.storage.opening import PathOrUrl, open_folder, split_file
from flowers_batch.text import shortened, visible

PAGE = "report.html"


def report(
    folder: PathOrUrl,
    out: PathOrUrl | None = None,
    *,
    images: PathOrUrl | None = None,
    root: PathOrUrl | None = None,
    model: PathOrUrl | None = None,
    codes: PathOrUrl | None = None,
    follow_links: bool = False,
    limits: PageLimits = DEFAULT_LIMITS,
    reporter: Reporter = NULL_REPORTER,
) -> str:
    """Write a report on predictions, codes or a model.

    Args:
        folder: A folder of predictions, of codes, or of a model.
        out: The page's file; None writes `report.html` into the folder.
        images, root, model, codes: Where the photos, what a list of them is relative to, the model, and the codes that
            it was trained on are; None: where the folder's files say, if that may be followed.
        follow_links: Whether photos are shown that links in the photos' folder name, but that are outside it.
        limits: How much the page shows.
        reporter: Receives where photos are read from, and how many are not shown without `follow_links`.

    Returns:
        The path or URL of the page.

    Raises:
        InputError: It is none of these folders, its run is not finished, or its files name photos in a place that may
            not be followed.
        RunError: The processes that make thumbnails do not start, or a bug was met.
    """
    opened = open_folder(folder)
    target, name = split_file(out) if out else (opened, PAGE)
    job = read_job(opened)
    if job is not None:
        run: Run | None = open_run(folder, job.kind, {"images": images, "root": root, "model": model})
    elif opened.exists(MODEL):
        run = None
    else:
        raise InputError(f"{opened.url} contains neither predictions, nor codes, nor a model: name such a folder.")
    try:
        given = {"images": images, "root": root, "codes": codes}
        content = collect_content(opened, run, given, limits, reporter, follow_links=follow_links)
    finally:
        charts.close_fonts()
    for sentence in content["not_shown"]:
        reporter.message(sentence)
    page = _render(content)
    with target.publish(name) as scratch:
        Path(scratch).write_text(page, encoding="utf-8")
    return target.url_of(name)


def _render(content: dict[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("flowers_batch.pages.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    environment.filters["whole_percent"] = lambda share: f"{share:.0%}"
    environment.filters["number"] = lambda count: f"{count:,}"
    environment.filters["short"] = shortened
    environment.filters["visible"] = visible
    return environment.get_template("report.html").render(**content)
