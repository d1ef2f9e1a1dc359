"""A first run from beginning to end: real photos and weights if available, else synthetic photos and random weights."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowers_batch.classifier.training import train
from flowers_batch.config import RANDOM, EncodeConfig, PredictConfig, TrainConfig
from flowers_batch.demo.inputs import find_photos, find_weights
from flowers_batch.errors import InputError
from flowers_batch.pages.report.content import SYNTHETIC_MARK, SYNTHETIC_TEXT
from flowers_batch.pages.report.page import report
from flowers_batch.progress import NULL_REPORTER, Reporter
from flowers_batch.runs.encode import encode
from flowers_batch.runs.predict import predict
from flowers_batch.storage.own_files import open_own_file
from flowers_batch.storage.subfolders import delete_tree, make_folder

SYNTHETIC_PHOTOS = 200  # what two slow cores encode in two minutes
_LABELLED_SHARE = 0.8  # of the photos; the others are the archive to be labelled
_SHARD_SIZE = 64
_DEMO_MARK = "flowers_batch_demo.txt"  # marks a demo's folder: no other folder is overwritten
_STEPS = 6


def run_demo(
    out: Path,
    *,
    weights: str | None = None,
    offline: bool = False,
    network: str = EncodeConfig.network,
    synthetic_photos: int = SYNTHETIC_PHOTOS,
    reporter: Reporter = NULL_REPORTER,
) -> dict[str, Any]:
    """Encode labelled photos, train a classifier, label other photos, and write the report.

    Args:
        out: Folder for all files; an earlier demo in it is overwritten.
        weights: As in `EncodeConfig`; by default ImageNet's if available, else random ones.
        offline: Whether to download nothing.
        network: The network that encodes.
        synthetic_photos: Number of photos to draw if there are no real ones.
        reporter: Receives the beginning and the end of each step, and the progress within it.

    Returns:
        `photos` (their folder, or `synthetic`), `weights`, `layer` and `pool` of the codes, `notes` (why the accuracy
        may be meaningless), `accuracy_of` (as in `metrics.json`) and the `scores` of these photos (`photos`,
        `accuracy`, `interval95`), `seconds` by step, `predictions` (their folder), and `report` (the page's path).

    Raises:
        InputError: The folder contains something other than a demo, or links in place of its folders, or the photos'
            folder contains no photos, or the weights are not available.
    """
    _prepare(out)
    steps = _Steps(reporter)
    with steps.step("photos"):
        photos = find_photos(out / "synthetic", synthetic_photos, offline, reporter)
        _lay_out(photos.by_class, out / "photos", is_synthetic=photos.folder is None)
    with steps.step("weights"):
        encoding = find_weights(weights, network, offline, reporter)
    codes, model, predictions = (str(out / name) for name in ("codes", "model", "predictions"))
    with steps.step("encode"):
        config = replace(encoding, shard_size=_SHARD_SIZE)
        encode(str(out / "photos" / "labelled"), codes, config, reporter=reporter)
    with steps.step("train"):
        metrics = train(codes, model, TrainConfig(("folder",)), reporter=reporter)
    with steps.step("predict"):
        labelling = PredictConfig(shard_size=_SHARD_SIZE)
        predict(str(out / "photos" / "unlabelled"), predictions, model, labelling, reporter=reporter)
    with steps.step("report"):
        page = report(predictions, str(out / "report.html"), follow_links=True)  # the demo's photos are links
    return {
        "photos": str(photos.folder) if photos.folder else "synthetic",
        "weights": encoding.weights,
        "layer": encoding.layer,
        "pool": encoding.pool,
        "notes": [*photos.notes, *_notes_on(encoding.weights)],
        "accuracy_of": metrics["accuracy_of"],
        "scores": {name: metrics[metrics["accuracy_of"]][name] for name in ("photos", "accuracy", "interval95")},
        "seconds": steps.seconds,
        "predictions": predictions,
        "report": page,
    }


def _notes_on(weights: str) -> list[str]:
    """Return a note if the weights are random, else nothing."""
    if not weights.startswith(RANDOM):
        return []
    return [f"The network's weights are random ({weights}), never trained on photos."]


class _Steps:
    """Numbers and times the steps of a demo.

    Attributes:
        seconds: Seconds that each completed step took, by its name.
    """

    def __init__(self, reporter: Reporter):
        self.seconds: dict[str, float] = {}
        self._reporter = reporter

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Report the block as the next step."""
        position = f"[{len(self.seconds) + 1}/{_STEPS}]"
        self._reporter.message(f"{position} {name} ...")
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        self._reporter.message(f"{position} {name}: {self.seconds[name]:.1f} s")


def _prepare(out: Path) -> None:
    """Make the folder, or delete an earlier demo's files from it."""
    if out.exists() and any(out.iterdir()) and not (out / _DEMO_MARK).exists():
        raise InputError(f"{out} contains something other than a demo: choose another folder with `out`.")
    make_folder(str(out.absolute()))
    with open(open_own_file(out / _DEMO_MARK, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="utf-8") as mark:
        mark.write("Made by `flowers-batch demo`, which overwrites it.\n")
    for name in ("photos", "synthetic", "codes", "model", "predictions"):
        delete_tree(str(out), name)


def _lay_out(classes: dict[str, list[Path]], folder: Path, is_synthetic: bool) -> None:
    """Link photos into `labelled/CLASS/` and, without their classes, into `unlabelled/`."""
    unlabelled = []
    for name, photos in classes.items():
        labelled = round(_LABELLED_SHARE * len(photos))
        unlabelled += photos[labelled:]
        for photo in photos[:labelled]:
            _link(photo, folder / "labelled" / name / photo.name)
    random.Random(0).shuffle(unlabelled)
    for number, photo in enumerate(unlabelled):
        _link(photo, folder / "unlabelled" / f"photo-{number:04d}{photo.suffix}")
    if is_synthetic:
        for part in ("labelled", "unlabelled"):
            (folder / part / SYNTHETIC_MARK).write_text(f"{SYNTHETIC_TEXT}\n", encoding="utf-8")


def _link(photo: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(photo.absolute())
