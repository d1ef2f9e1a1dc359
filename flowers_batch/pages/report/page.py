"""One HTML page that shows how good labels are, where they fail, and what could not be read."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flowers_batch.classifier.model_folder import METRICS, MODEL, Model, load_model
from flowers_batch.config import IMAGENET
from flowers_batch.dataset.run_folder import Run, open_run, read_job
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.errors import InputError
from flowers_batch.pages import charts
from flowers_batch.pages.report.album import _Album
from flowers_batch.pages.report.held_out import _held_out
from flowers_batch.pages.report.survey import _survey
from flowers_batch.pages.thumbnails import Photos
from flowers_batch.storage.folder import Folder, PathOrUrl, open_folder, split_file

PAGE = "report.html"
DRAWN = "DRAWN.txt"  # lies in a folder of photos that the demo drew
_FAILURES = 5  # examples of each reason
_LONGEST = 120  # characters of a path; longer ones lose their middle


def report(folder: PathOrUrl, out: PathOrUrl | None = None) -> str:
    """Writes the page.

    Args:
        folder: Of predictions, of codes, or of a model.
        out: The page's file; None writes `report.html` into the folder.

    Returns:
        Where the page lies.

    Raises:
        InputError: It is none of these folders, or its run has not ended.
    """
    place = open_folder(folder)
    job = read_job(place)
    if job is not None:
        run: Run | None = open_run(folder, job.kind)
        model = job.model
    elif place.exists(MODEL):
        model, run = place.url, None
    else:
        raise InputError(f"{place.url} holds neither predictions, nor codes, nor a model: give such a folder.")
    page = _render(_content(place, run, model))
    target, name = split_file(out) if out else (place, PAGE)
    with target.publish(name) as scratch:
        Path(scratch).write_text(page, encoding="utf-8")
    return target.url_of(name)


def _content(place: Folder, run: Run | None, model_url: str | None) -> dict[str, Any]:
    """All that the template shows; what comes first has pictures first."""
    content: dict[str, Any] = {"title": place.url.rstrip("/").rsplit("/", 1)[-1], "folder": place.url}
    content |= {"run": None, "metrics": None, "labels": None, "copies": [], "tuning": None}
    notes: list[str] = []
    album, sources = _Album(), []
    model = _model_of(model_url, run, notes) if model_url else None
    if model and model_url:
        photos = Photos(model.codes, model.images)
        sources.append(photos.source)
        content |= _held_out(open_folder(model_url), photos, album)
        run = run or _run_of(model.codes)
    if run:
        photos = Photos(run.folder.url, run.job.images)
        sources.append(photos.source)
        survey = _survey(run)
        content |= {"run": run, "failures": _failures(run), "copies": survey.copies.shown(photos, album)}
        if run.job.kind == PREDICTIONS:
            threshold = model.head.threshold if model else None
            content["labels"] = survey.shown(photos, album, threshold)
    unreal = []
    if any(source and source.folder.exists(DRAWN) for source in sources):
        unreal.append("The photos are drawn by a program, not taken by a camera.")
    weights = run.job.weights if run else model.weights if model else ""
    if weights.startswith("random:"):
        unreal.append(f"The network's weights are random ({weights}), never trained on photos.")
    began_with = model.training.get("initial_weights", "") if model else ""
    if began_with.startswith("random:"):
        unreal.append(f"The network was trained on these photos alone, from random weights ({began_with}).")
    if unreal and content["metrics"]:
        unreal.append("The accuracy below says nothing about real photos.")
    content["all_fit"] = album.fill()
    return content | {"warnings": unreal + notes + (run.summary["notes"] if run else [])}


def _model_of(url: str, run: Run | None, notes: list[str]) -> Model | None:
    """The model whose accuracy is that of a run's labels; where there is none, a note says why."""
    if url == IMAGENET:
        notes.append("The labels are ImageNet's 1000 classes, and how often they are right is not known.")
    elif not open_folder(url).exists(MODEL):
        notes.append(f"The model {url} is not there any more, so its accuracy is not shown.")
    else:
        try:
            model = load_model(url)
        except InputError as error:
            notes.append(str(error))
            return None
        if not open_folder(url).exists(METRICS):
            notes.append(f"The model {url} has no {METRICS}, so its accuracy is not shown: train it anew.")
            return None
        if run is None or run.job.fingerprint.head == model.head.identity:
            return model
        notes.append(
            f"The model {url} was trained anew since these labels were made: predict again to see how good it is."
        )
    return None


def _run_of(codes: str) -> Run | None:
    try:
        return open_run(codes, CODES)
    except InputError:
        return None


def _failures(run: Run) -> list[tuple[str, int, list[dict[str, str]]]]:
    """Each reason with how many photos it has and a few of them, the commonest first."""
    reasons = run.summary["reasons"]
    examples = defaultdict[str, list[dict[str, str]]](list)
    for batch in run.batches(["path", "reason", "message"]) if reasons else ():
        if all(len(examples[reason]) >= min(count, _FAILURES) for reason, count in reasons.items()):
            break
        for row in batch.filter(batch["reason"].is_valid()).to_pylist():
            if len(examples[row["reason"]]) < _FAILURES:
                examples[row["reason"]].append(row)
    return [(reason, count, examples[reason]) for reason, count in Counter(reasons).most_common()]


def _render(content: dict[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("flowers_batch.pages.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    environment.filters["number"] = lambda count: f"{count:,}"
    environment.filters["short"] = _short
    return environment.get_template("report.html").render(**content)


def _short(text: str) -> str:
    """A text that can be seen, without its middle if it is long."""
    text = charts.visible(text)
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"
