"""A first run from beginning to end, on real photos and weights where available, else on drawn ones."""

from __future__ import annotations

import os
import random
import shutil
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowers_batch.classifier.training import train
from flowers_batch.config import EncodeConfig, PredictConfig
from flowers_batch.demo.drawings import CLASSES, draw_photos
from flowers_batch.errors import InputError
from flowers_batch.pages.report.content import DRAWN
from flowers_batch.pages.report.page import report
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.runs.encode import encode
from flowers_batch.runs.predict import predict
from tensorflow_vgg.download import DownloadError, PublishedFile, cache_folder, fetch, find_cached, is_reachable
from tensorflow_vgg.weights import ENVIRONMENT_VARIABLE, PUBLISHED

PHOTOS_ENVIRONMENT = "FLOWERS_BATCH_PHOTOS"
# 3670 photos, CC BY 2.0 by their Flickr photographers, collected by the TensorFlow authors.
FLOWER_PHOTOS = PublishedFile(
    "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
    228813984,
    "sha256:4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
)
RANDOM_WEIGHTS = "random:0"
_PHOTOS_WITHOUT_GPU = 600
_DRAWN_PHOTOS = 200  # what two slow cores encode in two minutes
_LABELLED = 0.8  # of the photos; the others are the archive that is to be labelled
_SHARD_SIZE = 64
_MARK = "flowers_batch_demo.txt"  # what this folder is: only such a one is overwritten
_STEPS = 6


def run_demo(out: Path, *, offline: bool = False, reporter: Reporter = NULL_REPORTER) -> dict[str, Any]:
    """Encodes labelled photos, trains, labels others, and writes the report; tells each step on standard error.

    Args:
        out: Folder for all of it; an earlier demo in it is overwritten.
        offline: Whether nothing may be downloaded.
        reporter: Receives how it goes.

    Returns:
        `photos` and `weights` (what was taken), `notes` (why the accuracy may mean nothing), `test` (`photos`,
        `accuracy`, `interval95`), `seconds` by step, and `report`, the page's path.

    Raises:
        InputError: The folder holds something else than a demo.
    """
    _prepare(out)
    steps = _Steps(reporter)
    notes: list[str] = []
    with steps.step("photos"):
        photos, chosen = _photos(out, offline, notes, reporter)
        _lay_out(chosen, out / "photos", is_drawn=photos is None)
    with steps.step("weights"):
        weights = _weights(offline, notes, reporter)
    codes, model, predictions = (str(out / name) for name in ("codes", "model", "predictions"))
    with steps.step("encode"):
        encode(
            str(out / "photos" / "labelled"),
            codes,
            EncodeConfig(weights=weights, shard_size=_SHARD_SIZE),
            reporter=reporter,
        )
    with steps.step("train"):
        metrics = train(codes, model, reporter=reporter)
    with steps.step("predict"):
        config = PredictConfig(shard_size=_SHARD_SIZE)
        predict(str(out / "photos" / "unlabelled"), predictions, model, config, reporter=reporter)
    with steps.step("report"):
        page = report(predictions, str(out / "report.html"))
    return {
        "photos": str(photos) if photos else "drawn",
        "weights": weights,
        "notes": notes,
        "test": {name: metrics["test"][name] for name in ("photos", "accuracy", "interval95")},
        "seconds": steps.seconds,
        "report": page,
    }


class _Steps:
    """Numbers the steps, and tells how long each took."""

    def __init__(self, reporter: Reporter):
        self._reporter = reporter
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._reporter.message(f"[{len(self.seconds) + 1}/{_STEPS}] {name} ...")
        began = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)
        self._reporter.message(f"[{len(self.seconds)}/{_STEPS}] {name}: {self.seconds[name]:.1f} s")


def _prepare(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / _MARK).exists():
        raise InputError(f"{out} holds something else than a demo: choose another folder with `out`.")
    for name in ("photos", "drawn", "codes", "model", "predictions"):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).write_text("Made by `flowers-batch demo`, which overwrites it.\n", encoding="utf-8")


def _photos(
    out: Path, offline: bool, notes: list[str], reporter: Reporter
) -> tuple[Path | None, dict[str, list[Path]]]:
    """The folder of real photos, or None, and the photos to use, by class."""
    folder = _real_photos(offline, reporter)
    if folder is None:
        draw_photos(out / "drawn", _DRAWN_PHOTOS)
        notes.append(f"The {_DRAWN_PHOTOS} photos are drawn by a program, not taken by a camera.")
        return None, {name: sorted((out / "drawn" / name).iterdir()) for name in CLASSES}
    classes = {entry.name: sorted(entry.glob("*.jpg")) for entry in sorted(folder.iterdir()) if entry.is_dir()}
    if not any(classes.values()):
        raise InputError(f"There are no folders with .jpg photos in {folder}: check {PHOTOS_ENVIRONMENT}.")
    total = sum(map(len, classes.values()))
    if not _has_gpu() and total > _PHOTOS_WITHOUT_GPU:
        share = _PHOTOS_WITHOUT_GPU / total
        classes = {name: random.Random(0).sample(found, round(len(found) * share)) for name, found in classes.items()}
    reporter.message(f"{sum(map(len, classes.values()))} of the {total} photos in {folder}")
    return folder, classes


def _real_photos(offline: bool, reporter: Reporter) -> Path | None:
    if given := os.environ.get(PHOTOS_ENVIRONMENT):
        if not Path(given).is_dir():
            raise InputError(f"There is no folder {given} (from {PHOTOS_ENVIRONMENT}): check its name.")
        return Path(given)
    folder = cache_folder() / "flower_photos"
    if folder.is_dir():
        return folder
    if not _download(FLOWER_PHOTOS, "photos", offline, reporter):
        return None
    with tarfile.open(fetch(FLOWER_PHOTOS)) as archive:
        unpacked = folder.with_suffix(".part")
        archive.extractall(unpacked, filter="data")
    (unpacked / folder.name).replace(folder)
    unpacked.rmdir()
    return folder


def _weights(offline: bool, notes: list[str], reporter: Reporter) -> str:
    """`imagenet` if it can be had, else random weights and a note."""
    file = PUBLISHED["vgg16"]
    if os.environ.get(ENVIRONMENT_VARIABLE) or _download(file, "weights", offline, reporter):
        return "imagenet"
    notes.append(f"The network's weights are random ({RANDOM_WEIGHTS}), never trained on photos.")
    return RANDOM_WEIGHTS


def _download(file: PublishedFile, what: str, offline: bool, reporter: Reporter) -> bool:
    """Has a file in the cache, and says why not where it cannot be had."""
    if find_cached(file):
        return True
    if offline:
        reporter.message(f"{what}: not on this machine, and nothing may be downloaded")
        return False
    if not is_reachable(file):
        reporter.message(f"{what}: {file.url} does not answer")
        return False
    reporter.message(f"{what}: downloading {file.size / 1e6:.0f} MB from {file.url}")
    try:
        fetch(file)
    except DownloadError as error:
        reporter.message(f"{what}: {error}")
        return False
    return True


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()


def _lay_out(classes: dict[str, list[Path]], folder: Path, is_drawn: bool) -> None:
    """Links photos into `labelled/CLASS/` and, without their classes, into `unlabelled/`."""
    unlabelled = []
    for name, photos in classes.items():
        labelled = round(_LABELLED * len(photos))
        unlabelled += photos[labelled:]
        for photo in photos[:labelled]:
            _link(photo, folder / "labelled" / name / photo.name)
    random.Random(0).shuffle(unlabelled)
    for number, photo in enumerate(unlabelled):
        _link(photo, folder / "unlabelled" / f"photo-{number:04d}{photo.suffix}")
    if is_drawn:
        for part in ("labelled", "unlabelled"):
            (folder / part / DRAWN).write_text("These photos are drawn by a program.\n", encoding="utf-8")


def _link(photo: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(photo.absolute())
