"""One HTML page that shows how good labels are, where they fail, and what could not be read."""

from __future__ import annotations

import base64
import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from flowers_batch import charts
from flowers_batch.config import IMAGENET, InputError, RunError
from flowers_batch.dataset import CODES, PREDICTIONS, Run, open_run, read_job
from flowers_batch.decode import DecodeError
from flowers_batch.heads import METRICS, MODEL, SPLIT, Model, load_model
from flowers_batch.sources import Image, ReadError
from flowers_batch.storage import Folder, Where, open_folder, split_file
from flowers_batch.thumbnails import Photos

PAGE = "report.html"
DRAWN = "DRAWN.txt"  # lies in a folder of photos that the demo drew
_PICTURES_BYTES = 3_200_000  # of all pictures and what is written below them, so that the page can be mailed
_ITEM_BYTES = 250  # of a picture's tags
_SHOWN = 6  # photos of each kind
_CLASSES = 40  # with photos, and in the matrix: more do not fit; the tables have more
_TABLE_ROWS = 1000
_BARS = 25
_PARTS = 20  # of the histogram
_BANDS = ((0.0, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.0))  # of certainty, of which photos are shown
_FAILURES = 5  # examples of each reason
_MISTAKES = 10
_COPIES = 6  # sets that are shown
_DIGESTS = 50_000  # held at once while copies are looked for
_LONGEST = 120  # characters of a path; longer ones lose their middle


@dataclass
class Thumbnail:
    """A photo on the page.

    Attributes:
        path: Its key.
        caption: What is said of it.
        image: A data URL; empty where there is none.
        fits: Whether the page has room for it.
    """

    path: str
    caption: str
    image: str = ""
    fits: bool = True


def report(folder: Where, out: Where | None = None) -> str:
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


class _Album:
    """Pictures for the page: first all are chosen, then as many are made as can be mailed, in the order of choice."""

    def __init__(self) -> None:
        self._chosen: list[tuple[Photos, Thumbnail]] = []

    def pictures(self, photos: Photos, captions: dict[str, str]) -> list[Thumbnail]:
        """Pictures of photos, from their paths and captions; they are empty until `fill` is called."""
        pictures = [Thumbnail(path, caption) for path, caption in captions.items()]
        self._chosen += [(photos, picture) for picture in pictures]
        return pictures

    def fill(self) -> bool:
        """Makes the pictures; tells whether all had room."""
        paths = defaultdict[Photos, set[str]](set)
        for photos, picture in self._chosen:
            paths[photos].add(picture.path)
        images = {photos: photos.find(names) for photos, names in paths.items()}
        left = _PICTURES_BYTES
        for photos, picture in self._chosen:
            picture.fits = left > 0
            if picture.fits:
                picture.image = _data_url(photos, images[photos][picture.path])
                left -= len(picture.image) + len((picture.path + picture.caption).encode()) + _ITEM_BYTES
        return all(picture.fits for _, picture in self._chosen)


def _data_url(photos: Photos, image: Image) -> str:
    try:
        content = photos.thumbnail(image)
    except (ReadError, DecodeError, RunError):  # RunError: the folder has vanished
        return ""
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


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
    began_with = model.training.get("from", "") if model else ""
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


def _held_out(model: Folder, photos: Photos, album: _Album) -> dict[str, Any]:
    """How a model did on the photos that it was neither trained nor tuned on."""
    metrics = model.read_json(METRICS)
    classes, matrix = metrics["classes"], metrics["test"]["confusion_matrix"]
    with model.open(SPLIT) as file:
        rows = pq.read_table(file, columns=["path", "label", "prediction", "probability", "side"])
    rows = rows.filter(pc.equal(rows["side"], "test")).sort_by([("probability", "descending"), ("path", "ascending")])
    by_cell = defaultdict[tuple[str, str], list[dict[str, Any]]](list)
    for row in rows.to_pylist():
        by_cell[row["label"], row["prediction"]].append(row)
    mistakes = _mistakes(matrix, classes)
    has_matrix = len(classes) <= _CLASSES
    wanted = by_cell if has_matrix else [(label, taken_for) for label, taken_for, _ in mistakes]
    cells = {}
    for label, taken_for in sorted(wanted, key=lambda cell: (cell[0] == cell[1], -len(by_cell[cell]), cell)):
        here = by_cell[label, taken_for]
        captions = {row["path"]: f"{row['probability']:.0%} sure" for row in here[:_SHOWN]}
        cells[label, taken_for] = {
            "id": f"cell-{classes.index(label)}-{classes.index(taken_for)}",
            "photos": len(here),
            "pictures": album.pictures(photos, captions),
        }
    per_class = metrics["test"]["per_class"]
    largest = heapq.nlargest(_CLASSES, classes, key=lambda name: per_class[name]["photos"])
    points = metrics["learning_curve"]
    has_curve = len(points) > 1  # of a network that was fine-tuned there is no other point
    return {
        "metrics": metrics,
        "has_matrix": has_matrix,
        "matrix": [[(count, count / max(1, sum(line))) for count in line] for line in matrix] if has_matrix else [],
        "cells": cells,
        "mistakes": mistakes,
        "classes": {name: _of_class(name, classes, by_cell, photos, album) for name in classes if name in largest},
        "calibration_chart": charts.calibration(metrics["calibration"]["curve"]),
        "learning_chart": charts.learning(points) if has_curve else None,
        "gain": points[-1]["accuracy"] - points[-2]["accuracy"] if has_curve else None,
    } | _tuning(metrics.get("tuning"))


def _tuning(tuning: dict[str, Any] | None) -> dict[str, Any]:
    """How a network was fine-tuned, if it was."""
    if tuning is None:
        return {"tuning": None}
    loss, accuracy = (charts.epochs(tuning["epochs"], name, tuning["best_epoch"]) for name in ("loss", "accuracy"))
    return {"tuning": tuning, "loss_chart": loss, "accuracy_chart": accuracy}


def _of_class(
    name: str,
    classes: Sequence[str],
    by_cell: dict[tuple[str, str], list[dict[str, Any]]],
    photos: Photos,
    album: _Album,
) -> list[tuple[str, list[Thumbnail]]]:
    """Kinds of a class's held-out photos: the surest, the least sure, and the wrongly labelled."""
    right = by_cell.get((name, name), [])
    other = [row for taken_for in classes if taken_for != name for row in by_cell.get((name, taken_for), [])]
    other.sort(key=lambda row: -row["probability"])
    surest, unsure = right[:_SHOWN], right[_SHOWN:][-_SHOWN:][::-1]
    kinds = {
        "Right, the surest": {row["path"]: f"{row['probability']:.0%} sure" for row in surest},
        "Right, the least sure": {row["path"]: f"{row['probability']:.0%} sure" for row in unsure},
        "Wrong, the surest": {
            row["path"]: f"taken for {row['prediction']}, {row['probability']:.0%} sure" for row in other[:_SHOWN]
        },
    }
    return [(kind, album.pictures(photos, captions)) for kind, captions in kinds.items() if captions]


def _mistakes(matrix: list[list[int]], classes: list[str]) -> list[tuple[str, str, int]]:
    """The commonest mistakes: true class, predicted class, photos."""
    counts = [
        (classes[row], classes[column], count)
        for row, line in enumerate(matrix)
        for column, count in enumerate(line)
        if count and row != column
    ]
    return heapq.nlargest(_MISTAKES, counts, key=lambda mistake: mistake[2])


class _Samples:
    """For each key the few photos whose digests are the smallest: a fair sample, and the same each time."""

    def __init__(self) -> None:
        self._kept: dict[Any, list[tuple[int, str, float]]] = {}

    def add(self, keys: NDArray[Any], ranks: NDArray[np.uint64], rows: pa.RecordBatch) -> None:
        """Takes rows of predictions, a key each."""
        order = np.lexsort((ranks, keys))
        starts = np.flatnonzero(np.append(True, keys[order][1:] != keys[order][:-1])[: len(order)])
        place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        few = order[place < _SHOWN]
        columns = [rows[name].take(pa.array(few)).to_pylist() for name in ("path", "probability")]
        for key, rank, path, sure in zip(keys[few].tolist(), ranks[few].tolist(), *columns, strict=True):
            kept = self._kept.setdefault(key, [])
            kept.append((rank, path, sure))
            if len(kept) > _SHOWN:
                kept.remove(max(kept))

    def captions(self, key: Any) -> dict[str, str]:
        """The photos of a key."""
        return {path: f"{sure:.0%} sure" for _, path, sure in sorted(self._kept.get(key, []))}


class _Copies:
    """Photos of equal bytes: all of those whose digests are below a bound that keeps few enough in memory."""

    def __init__(self) -> None:
        self._bound = (1 << 64) - 1
        self._sets: dict[bytes, _Set] = {}

    def add(self, ranks: NDArray[np.uint64], rows: pa.RecordBatch) -> None:
        """Takes rows that have a digest."""
        below = rows.filter(pa.array(ranks <= np.uint64(self._bound)))
        for digest, path in zip(below["sha256"].to_pylist(), below["path"].to_pylist(), strict=True):
            found = self._sets.setdefault(digest, _Set())
            found.photos += 1
            if len(found.paths) < _SHOWN:
                found.paths.append(path)
        while len(self._sets) > _DIGESTS:
            self._bound //= 2
            below_bound = (digest for digest in self._sets if int.from_bytes(digest[:8], "big") <= self._bound)
            self._sets = {digest: self._sets[digest] for digest in below_bound}

    def shown(self, photos: Photos, album: _Album) -> list[dict[str, Any]]:
        """The largest sets."""
        sets = heapq.nlargest(
            _COPIES, (found for found in self._sets.values() if found.photos > 1), key=lambda found: found.photos
        )
        return [
            {"photos": found.photos, "pictures": album.pictures(photos, dict.fromkeys(found.paths, ""))}
            for found in sets
        ]


@dataclass
class _Set:
    """Photos of equal bytes: how many, and the first of them."""

    photos: int = 0
    paths: list[str] = field(default_factory=list)


@dataclass
class _Survey:
    """What is learnt from all rows of a run."""

    counts: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    parts: NDArray[np.int_] = field(default_factory=lambda: np.zeros(_PARTS, np.int_))
    by_label: _Samples = field(default_factory=_Samples)
    by_band: _Samples = field(default_factory=_Samples)
    copies: _Copies = field(default_factory=_Copies)

    def shown(self, photos: Photos, album: _Album, threshold: float | None) -> dict[str, Any]:
        """Labels and certainty, for the template."""
        total = max(1, self.counts.total())
        names = [name for name, _ in self.counts.most_common(_CLASSES)]
        few = self.counts.most_common(_BARS)
        return {
            "rows": self.counts.most_common(_TABLE_ROWS),
            "more": max(0, len(self.counts) - _TABLE_ROWS),
            "total": total,
            "unknown": self.unknown,
            "chart": charts.bars([name for name, _ in few], [count for _, count in few]) if few else "",
            "parts": [(number / _PARTS, (number + 1) / _PARTS, count) for number, count in enumerate(self.parts)],
            "parts_chart": charts.histogram(self.parts.tolist(), threshold),
            "bands": [
                (band, album.pictures(photos, self.by_band.captions(number))) for number, band in enumerate(_BANDS)
            ],
            "samples": [(name, album.pictures(photos, self.by_label.captions(name))) for name in names],
        }


def _survey(run: Run) -> _Survey:
    """Streams all rows of a run once."""
    survey = _Survey()
    labels = ["prediction", "probability", "is_unknown"] if run.job.kind == PREDICTIONS else []
    if not labels and not run.summary["duplicates"]:
        return survey
    edges = np.array([high for _, high in _BANDS[:-1]])
    for batch in run.batches(["path", "sha256", *labels]):
        read = batch.filter(batch["sha256"].is_valid())
        if run.summary["duplicates"]:
            survey.copies.add(_ranks(read), read)
        if labels:
            rows = read.filter(read["prediction"].is_valid())
            names, sure = rows["prediction"].to_numpy(zero_copy_only=False), rows["probability"].to_numpy()
            survey.counts.update(names.tolist())
            survey.unknown += pc.sum(rows["is_unknown"]).as_py() or 0
            survey.parts += np.histogram(sure, _PARTS, (0, 1))[0]
            survey.by_label.add(names.astype(str), _ranks(rows), rows)
            survey.by_band.add(np.searchsorted(edges, sure, side="right"), _ranks(rows), rows)
    return survey


def _ranks(rows: pa.RecordBatch) -> NDArray[np.uint64]:
    """The first eight bytes of each digest as a number: uint64 [rows]."""
    digests = pa.concat_arrays([rows["sha256"]])  # which begins at its buffer's beginning
    data = np.frombuffer(digests.buffers()[1] or b"", np.uint8)[32 * digests.offset :][: 32 * len(digests)]
    return data.reshape(-1, 32)[:, :8].copy().view(">u8").ravel().astype(np.uint64)


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
        loader=PackageLoader("flowers_batch"),
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
