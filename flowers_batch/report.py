"""One HTML page that shows how good labels are, where they fail, and what could not be read."""

from __future__ import annotations

import base64
import heapq
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import pyarrow.parquet as pq
import simplejpeg
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flowers_batch.config import IMAGENET, InputError, RunError
from flowers_batch.dataset import CODES, PREDICTIONS, Run, open_run, read_job
from flowers_batch.decode import DecodeError, decode_photo
from flowers_batch.heads import METRICS, MODEL, SPLIT, Model, load_model
from flowers_batch.shards import find_images
from flowers_batch.sources import Image, ReadError, Source, open_source
from flowers_batch.storage import Folder, Where, open_folder, split_file

PAGE = "report.html"
DRAWN = "DRAWN.txt"  # lies in a folder of photos that the demo drew
_THUMBNAIL = 160  # pixels of the longer side
_QUALITY = 80
_SHOWN = 12  # photos of each kind
_SHOWN_A_LABEL = 6
_LABELS = 40  # with photos; the table has all
_FAILURES = 20
_CHART_CLASSES = 40  # more do not fit into a chart; the commonest mistakes are listed all the same
_MISTAKES = 10


@dataclass(frozen=True)
class Thumbnail:
    """A photo on the page: `image` is a data URL, or empty where the photo cannot be read now."""

    path: str
    caption: str
    image: str


@dataclass
class _Labels:
    """The labels of an archive: how many photos have each, and a sample of them."""

    counts: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[tuple[bytes, str, float]]] = field(default_factory=dict)


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


def _content(place: Folder, run: Run | None, model_url: str | None) -> dict[str, Any]:
    """All that the template shows."""
    content: dict[str, Any] = {"title": place.url.rstrip("/").rsplit("/", 1)[-1], "folder": place.url}
    content |= {"run": None, "metrics": None, "labels": None}
    notes: list[str] = []
    model = _model_of(model_url, run, notes) if model_url else None
    sources = []
    if model and model_url:
        metrics = open_folder(model_url).read_json(METRICS)
        photos = _Photos(model.codes, model.images)
        sources.append(photos.source)
        right, wrong = _held_out(open_folder(model_url), photos)
        matrix, classes = metrics["test"]["confusion_matrix"], metrics["classes"]
        content |= {"metrics": metrics, "right": right, "wrong": wrong, "mistakes": _mistakes(matrix, classes)}
        content["confusion"] = _confusion_chart(matrix, classes) if len(classes) <= _CHART_CLASSES else None
        run = run or _run_of(model.codes)
    if run:
        photos = _Photos(run.folder.url, run.job.images)
        sources.append(photos.source)
        content |= {"run": run, "failures": list(_failures(run))}
        if run.job.kind == PREDICTIONS:
            content["labels"] = _label_rows(run, photos)
    unreal = []
    if any(source and source.folder.exists(DRAWN) for source in sources):
        unreal.append("The photos are drawn by a program, not taken by a camera.")
    weights = run.job.weights if run else model.weights if model else ""
    if weights.startswith("random:"):
        unreal.append(f"The network's weights are random ({weights}), never trained on photos.")
    if unreal and content["metrics"]:
        unreal.append("The accuracy below says nothing about real photos.")
    return content | {"warnings": unreal + notes + (run.summary["notes"] if run else [])}


def _model_of(url: str, run: Run | None, notes: list[str]) -> Model | None:
    """The model whose accuracy is that of a run's labels; where there is none, a note says why."""
    if url == IMAGENET:
        notes.append("The labels are ImageNet's 1000 classes, and how often they are right is not known.")
    elif not open_folder(url).exists(MODEL):
        notes.append(f"The model {url} is not there any more, so its accuracy is not shown.")
    else:
        model = load_model(url)
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


def _held_out(model: Folder, photos: _Photos) -> tuple[list[Thumbnail], list[Thumbnail]]:
    """Test photos that the classifier was surest of, rightly and wrongly."""
    with model.open(SPLIT) as file:
        rows = pq.read_table(file, filters=[("side", "=", "test")]).to_pylist()
    rows.sort(key=lambda row: -row["probability"])
    right = [row for row in rows if row["label"] == row["prediction"]]
    wrong = [row for row in rows if row["label"] != row["prediction"]]
    sure = {row["path"]: f"{row['label']}, {row['probability']:.0%} sure" for row in right[:_SHOWN]}
    mistaken = {
        row["path"]: f"{row['label']}, taken for {row['prediction']} ({row['probability']:.0%} sure)"
        for row in wrong[:_SHOWN]
    }
    return photos.thumbnails(sure), photos.thumbnails(mistaken)


def _label_rows(run: Run, photos: _Photos) -> list[dict[str, Any]]:
    """Each label with its share of the archive and a few of its photos, the most frequent first."""
    labels = _Labels()
    for batch in run.batches(["path", "sha256", "prediction", "probability"]):
        columns = [batch[name].to_pylist() for name in ("prediction", "sha256", "path", "probability")]
        new: dict[str, list[tuple[bytes, str, float]]] = {}
        for label, digest, path, probability in zip(*columns, strict=True):
            if label is not None:
                new.setdefault(label, []).append((digest, path, probability))
        for label, rows in new.items():
            labels.counts[label] += len(rows)
            # The smallest digests are a fair sample, the same each time.
            labels.samples[label] = heapq.nsmallest(_SHOWN_A_LABEL, [*labels.samples.get(label, []), *rows])
    total = labels.counts.total()
    shown = [label for label, _ in labels.counts.most_common(_LABELS)]
    captions = {path: f"{sure:.0%} sure" for label in shown for _, path, sure in labels.samples[label]}
    pictures = {picture.path: picture for picture in photos.thumbnails(captions)}
    return [
        {
            "name": label,
            "count": count,
            "share": count / total,
            "photos": [pictures[path] for _, path, _ in labels.samples[label]] if label in shown else [],
        }
        for label, count in labels.counts.most_common()
    ]


def _failures(run: Run) -> Iterator[dict[str, str]]:
    shown = 0
    for batch in run.batches(["path", "reason", "message"]) if run.summary["failed"] else ():
        for row in batch.filter(batch["reason"].is_valid()).to_pylist():
            if shown == _FAILURES:
                return
            shown += 1
            yield row


class _Photos:
    """The photos of a run.

    Args:
        folder: The run's, whose manifest knows what file holds a photo.
        images: Where the photos lie.
    """

    def __init__(self, folder: str, images: str):
        self._folder = open_folder(folder)
        job = read_job(self._folder)
        self.source: Source | None = None
        with suppress(InputError):
            self.source = open_source(images, job.root if job else None)

    def thumbnails(self, captions: dict[str, str]) -> list[Thumbnail]:
        """Small pictures of photos, from their paths and captions."""
        if self.source is None:
            return [Thumbnail(path, caption, "") for path, caption in captions.items()]
        images = {path: Image(path) for path in captions}
        if not self.source.found_by_path:
            images |= find_images(self._folder, captions.keys())
        return [Thumbnail(path, caption, _thumbnail(self.source, images[path])) for path, caption in captions.items()]


def _thumbnail(source: Source, image: Image) -> str:
    try:
        photo = decode_photo(source.read(image))
    except (ReadError, DecodeError, RunError):  # RunError: the folder has vanished
        return ""
    height, width = photo.shape[:2]
    scale = min(1.0, _THUMBNAIL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    encoded = base64.b64encode(simplejpeg.encode_jpeg(small, quality=_QUALITY)).decode()
    return f"data:image/jpeg;base64,{encoded}"


def _mistakes(matrix: list[list[int]], classes: list[str]) -> list[tuple[str, str, int]]:
    """The commonest mistakes: true class, predicted class, photos."""
    counts = [
        (classes[row], classes[column], count)
        for row, line in enumerate(matrix)
        for column, count in enumerate(line)
        if count and row != column
    ]
    return heapq.nlargest(_MISTAKES, counts, key=lambda mistake: mistake[2])


def _confusion_chart(matrix: list[list[int]], classes: list[str]) -> Markup:
    """The confusion matrix as SVG: a row is a true class, and its shades are shares of that class."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Names are only text: a dollar sign begins no formula. `none` keeps them as text in the SVG.
    with mpl.rc_context({"text.parse_math": False, "svg.fonttype": "none", "font.family": "sans-serif"}):
        side = 2.5 + 0.45 * len(classes)
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
        axes.imshow(shares, cmap="Greens", vmin=0, vmax=1)
        names = [name if len(name) <= 20 else f"{name[:19]}…" for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="true class")
        for row, counts in enumerate(matrix):
            for column, count in enumerate(counts):
                colour = "white" if shares[row][column] > 0.6 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    # matplotlib escapes the names itself.
    return Markup(buffer.getvalue()[buffer.getvalue().index("<svg") :])


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
    return environment.get_template("report.html").render(**content)
