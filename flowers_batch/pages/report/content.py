"""All that a report shows, collected for its template."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from flowers_batch.classifier.model_folder import METRICS, MODEL, Model, load_model
from flowers_batch.config import IMAGENET
from flowers_batch.dataset import formats_0_1
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.errors import InputError
from flowers_batch.pages.photos import Photos
from flowers_batch.pages.report.album import Album
from flowers_batch.pages.report.held_out import describe_held_out
from flowers_batch.pages.report.limits import PageLimits
from flowers_batch.pages.report.places import find_places
from flowers_batch.pages.report.survey import survey_run
from flowers_batch.progress import Reporter
from flowers_batch.sources.left_out_text import describe_left_out
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import PathOrUrl, open_folder

SYNTHETIC_MARK = "SYNTHETIC.txt"  # marks a folder of photos that the demo drew, by this text
SYNTHETIC_TEXT = "A program drew these photos."


def collect_content(
    folder: Folder,
    run: Run | None,
    given: Mapping[str, PathOrUrl | None],
    limits: PageLimits,
    reporter: Reporter,
    *,
    follow_links: bool = False,
) -> dict[str, Any]:
    """Return the variables of the template.

    Thumbnails of held-out photos are added first: if not all fit on the page, these do.

    Args:
        folder: The folder that is reported on.
        run: The run in that folder; None for a model folder.
        given: `images`, `root` and `codes`, if the user says where they are.
        limits: Limits of the page.
        reporter: Receives where photos are read from.
        follow_links: Whether photos are shown that links in the photos' folder name, but that are outside it.

    Raises:
        InputError: The folder's files name photos in a place that may not be followed.
    """
    content: dict[str, Any] = {"title": folder.url.rstrip("/").rsplit("/", 1)[-1], "folder": folder.url}
    content |= {"run": None, "metrics": None, "scores": None, "labels": None, "duplicates": [], "tuning": None}
    notes: list[str] = []
    album, shown_photos = Album(limits), list[Photos]()
    place = run.photos if run else None
    model_url = _model_of(run, notes) if run else folder.url
    model = _find_model(model_url, run, notes) if model_url else None
    if model and model_url:
        held_out = find_places(open_folder(model_url), model, run, given, notes)
        photos = Photos(held_out.codes or model_url, held_out.images, held_out.root, follow_links=follow_links)
        shown_photos.append(photos)
        content |= describe_held_out(open_folder(model_url), photos, album)
        if run is None and held_out.codes:
            run = _open_codes(held_out.codes)
            place = (held_out.images, held_out.root) if held_out.images else None
        if held_out.images:
            reporter.message(f"photos of the model are read from {held_out.images}")
    if run and place:
        photos = Photos(run.folder.url, *place, follow_links=follow_links)
        reporter.message(f"photos are read from {place[0]}")
        shown_photos.append(photos)
        survey = survey_run(run, limits)
        content |= {"run": run, "failures": _find_failures(run, limits.failures)}
        content["left_out"] = describe_left_out(run.summary)
        content["duplicates"] = survey.duplicates.show(photos, album)
        if run.job.kind == PREDICTIONS:
            content["labels"] = survey.show_labels(photos, album, model.head.threshold if model else None)
    content["all_fit"] = album.fill()
    warnings = _warn_of_synthetic(shown_photos, run, model, has_accuracy=content["scores"] is not None)
    notes += album.notes
    content["not_shown"] = album.notes
    return content | {"warnings": warnings + notes + (run.summary["notes"] if run else [])}


def _model_of(run: Run, notes: list[str]) -> str | None:
    """Return where the model of a run is; add a note if that is not followed."""
    if run.job.model == IMAGENET:
        return IMAGENET
    try:
        return run.place("model")
    except InputError as error:
        notes.append(f"The accuracy of the model is not shown: {error}")
        return None


def _find_model(url: str, run: Run | None, notes: list[str]) -> Model | None:
    """Return the model whose accuracy applies to a run's labels; without one, add the reason to the notes."""
    if url == IMAGENET:
        notes.append("The labels are ImageNet's 1000 classes, and their accuracy on these photos is not known.")
    elif not open_folder(url).exists(MODEL):
        notes.append(f"The model {url} no longer exists, so its accuracy is not shown.")
    else:
        try:
            model = load_model(url)
        except InputError as error:
            notes.append(str(error))
            return None
        if not open_folder(url).exists(METRICS):
            notes.append(f"The model {url} has no {METRICS}, so its accuracy is not shown: train it again.")
            return None
        if run is None or run.job.fingerprint.head == model.head.identity:
            return model
        notes.append(
            f"The model {url} was retrained after these labels were predicted: predict again to see its accuracy."
        )
    return None


def _open_codes(folder: str) -> Run | None:
    try:
        return open_run(folder, CODES)
    except InputError:
        return None


def _warn_of_synthetic(photos: list[Photos], run: Run | None, model: Model | None, has_accuracy: bool) -> list[str]:
    """Return sentences about synthetic photos and random weights, which make the accuracy meaningless."""
    warnings = []
    if any(each.source and _is_synthetic(each.source.folder) for each in photos):
        warnings.append("The photos are synthetic: drawn by a program, not taken by a camera.")
    weights = run.job.weights if run else model.weights if model else ""
    if weights.startswith("random:"):
        warnings.append(f"The network has random weights ({weights}), never trained on photos.")
    initial_weights = model.training.get("initial_weights", "") if model else ""
    if initial_weights.startswith("random:"):
        warnings.append(f"The network was trained on these photos alone, from random weights ({initial_weights}).")
    if warnings and has_accuracy:
        warnings.append("The accuracy below says nothing about real photos.")
    return warnings


def _is_synthetic(folder: Folder) -> bool:
    marks = {SYNTHETIC_MARK: SYNTHETIC_TEXT, formats_0_1.SYNTHETIC_MARK: formats_0_1.SYNTHETIC_TEXT}
    return any(folder.exists(mark) and _begins_with(folder, mark, text) for mark, text in marks.items())


def _begins_with(folder: Folder, name: str, text: str) -> bool:
    with suppress(OSError), folder.open(name) as file:
        return file.read(len(text)) == text.encode()
    return False


def _find_failures(run: Run, limit: int) -> list[tuple[str, int, list[dict[str, str]]]]:
    """Return each reason, how many photos it has, and at most `limit` of their rows; the most common reason first."""
    reasons = run.summary["reasons"]
    examples = defaultdict[str, list[dict[str, str]]](list)
    for batch in run.batches(["path", "reason", "message"]) if reasons else ():
        if all(len(examples[reason]) >= min(count, limit) for reason, count in reasons.items()):
            break
        for row in batch.filter(batch["reason"].is_valid()).to_pylist():
            if len(examples[row["reason"]]) < limit:
                examples[row["reason"]].append(row)
    return [(reason, count, examples[reason]) for reason, count in Counter(reasons).most_common()]
