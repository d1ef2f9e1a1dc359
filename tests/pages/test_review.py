"""Views, labels and retraining of a review, without its server."""

from __future__ import annotations

import json
import shutil
import tarfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from archive_runs import predict_with_link
from helpers import decode_processes

import flowers_batch as fb
from flowers_batch.classifier.labels_file import read_labels
from flowers_batch.pages.review.filters import Filters
from flowers_batch.pages.review.review import Review
from flowers_batch.pages.review.training_plan import next_folder
from flowers_batch.pages.review.training_source import find_training_source
from flowers_batch.pages.thumbnails import NoThumbnail, ThumbnailPool
from flowers_batch.sources.images import Image


def label(review: Review, rows: list[int], labels: list[str | None]) -> dict[str, Any]:
    return review.label(rows, labels, ["view"] * len(rows))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Folders `codes`, `model` and `predictions` of 31 photos, one of them outside the photos' folder."""
    return predict_with_link(tmp_path_factory.mktemp("review"))


def test_review_works_without_classifier_or_codes(base, tmp_path):
    """Predictions whose classifier or codes no longer exist can still be reviewed, but not retrained."""
    moved = tmp_path / "predictions"
    shutil.copytree(base / "predictions", moved)
    for key in ("model", "codes"):
        job = json.loads((base / "predictions" / "job.json").read_text())
        job[key] = str(tmp_path / f"no {key}")
        (moved / "job.json").write_text(json.dumps(job))
        review = Review(moved, tmp_path / f"{key}.csv")
        assert len(review.views.select("uncertain")["rows"]) == 31
        assert label(review, review.views.select("uncertain")["rows"][:2], ["red", "red"])["labelled"] == 2
        assert key in review.state()["training_unavailable"] and review.training.plan.commands() == []
        assert "groups" not in review.state()["views"] and "near_duplicates" in review.state()["views"]
        while "computing" in (found := review.views.select("near_duplicates")):
            time.sleep(0.005)
        assert len(found["groups"]) == 1, "the link and a photo like that behind it"
        with pytest.raises(fb.InputError, match="cannot be compared here"):
            review.views.groups(Filters())
        with pytest.raises(fb.InputError, match="Training is not possible here"):
            review.training.retraining.start()
        review.close()


def test_photos_in_tars_have_thumbnails(base, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(base / "photos" / "green", "green")
        tar.add(base / "photos" / "blue", "blue")
    fb.predict(tmp_path / "photos.tar", tmp_path / "predictions", base / "model", fb.PredictConfig(shard_size=8))
    review = Review(tmp_path / "predictions", tmp_path / "labels.csv")
    rows = review.views.select("uncertain")["rows"]
    assert len(rows) == 20
    for photo in review.photos(rows):
        shown = cv2.imdecode(np.frombuffer(review.images.thumbnail(photo["row"]), np.uint8), cv2.IMREAD_COLOR)
        kind = "blue" if "/blue/" in photo["path"].replace("!", "/") else "green"
        assert {"blue": 0, "green": 1}[kind] == shown.reshape(-1, 3).mean(0).argmax(), photo["path"]
    assert review.training.plan.commands() == [] and "encode" in review.state()["training_unavailable"]
    review.close()


def test_processes_start_with_a_thumbnail_and_end_with_the_review(base, tmp_path):
    before = decode_processes()
    with closing(Review(base / "predictions", tmp_path / "labels.csv")) as review:
        assert decode_processes() == before
        assert review.images.thumbnail(0) == review.images.thumbnail(0) and decode_processes() != before
    assert decode_processes() == before
    with pytest.raises(fb.RunError, match="were ended"):
        review.images.thumbnail(1)


def test_paths_outside_the_photos_folder_are_not_read(base, tmp_path):
    """Manipulated predictions do not expose files outside the photos' folder."""
    review = Review(base / "predictions", tmp_path / "labels.csv")
    with closing(review), closing(ThumbnailPool(review.images.photos.source)) as pool:
        assert pool.make(Image("red/0001.png"))[:4] == b"RIFF"
        for path in ("../secret/red/0000.png", "/etc/passwd", "red/../../secret/red/0000.png", "//bytes/..%2Fsecret"):
            with pytest.raises(fb.InputError, match="names no image of"):
                pool.make(Image(path))
        with pytest.raises(NoThumbnail, match="a link to a file outside"):
            pool.make(Image("red/link.png"))


def test_only_photos_that_the_list_names_are_read(base, tmp_path):
    listed = tmp_path / "list.txt"
    shown, secret = str(base / "photos" / "red" / "0001.png"), str(base / "secret" / "red" / "0000.png")
    listed.write_text(f"{shown}\n{secret}\n")
    fb.predict(listed, tmp_path / "predictions", base / "model")
    listed.write_text(f"{shown}\n")  # as if only the manifest and the predictions named the other one
    review = Review(tmp_path / "predictions", tmp_path / "labels.csv")
    images = review.images
    first, second = review.table.find([shown, secret]).values()
    assert images.thumbnail(first)[:4] == b"RIFF"
    with pytest.raises(NoThumbnail, match="no longer in the list"):
        images.thumbnail(second)
    assert list(images.photos.find([shown, secret])) == [shown], "the report shows no other"
    review.close()


def test_labels_of_photos_written_in_another_way_are_theirs(base, tmp_path):
    (tmp_path / "labels.csv").write_text("Path;Label\n.\\red\\0001.png;blue\n")
    review = Review(base / "predictions", tmp_path / "labels.csv")
    (row,) = review.views.select("labelled")["rows"]
    (photo,) = review.photos([row])
    assert (photo["path"], photo["label"]) == ("red/0001.png", "blue")
    label(review, [row], ["red"])
    assert read_labels(str(tmp_path / "labels.csv")).labels["red/0001.png"] == "red"
    review.labels.undo()
    assert review.labels.by_row() == {row: "blue"}
    review.close()


def test_views_select_and_order_photos(base, tmp_path):
    review = Review(base / "predictions", tmp_path / "labels.csv")
    confidences = [photo["probability"] for photo in review.photos(review.views.select("uncertain")["rows"])]
    assert confidences == sorted(confidences) and len(confidences) == 31
    first = review.views.select("uncertain")["rows"][0]
    label(review, [first], ["blue"])
    assert first not in review.views.select("uncertain")["rows"] and review.views.select("labelled")["rows"] == [first]
    assert first in review.views.select("class", Filters("blue"))["rows"]
    others = review.photos(review.views.select("class", Filters("green"))["rows"])
    assert all((photo["label"] or photo["prediction"]) == "green" for photo in others)
    label(review, [first], [None])
    assert review.photos([first])[0]["label"] == review.photos([first])[0]["prediction"]
    review.labels.undo()
    assert review.photos([first])[0]["label"] == "blue"
    review.labels.undo()
    assert review.views.select("labelled")["rows"] == [] and first in review.views.select("uncertain")["rows"]
    review.close()


def test_next_folder_never_names_an_earlier_one(base, tmp_path):
    assert [next_folder(name) for name in ("m", "m/", "m-corrected", "m-corrected-2", "a-corrected/m")] == [
        "m-corrected",
        "m-corrected",
        "m-corrected-2",
        "m-corrected-3",
        "a-corrected/m-corrected",
    ]
    review = Review(base / "predictions", tmp_path / "labels.csv")
    train, predict = review.training.plan.commands()
    assert (
        f"{base}/model-corrected" in train and f"{base}/predictions-corrected --model {base}/model-corrected" in predict
    )
    review.close()


def test_training_labels_are_kept_after_a_retraining(base, tmp_path):
    """The labels count although the model folder now has another classifier than the one that predicted."""
    shutil.copytree(base / "model", tmp_path / "model")
    shutil.copytree(base / "predictions", tmp_path / "predictions")
    job = json.loads((base / "predictions" / "job.json").read_text())
    (tmp_path / "predictions" / "job.json").write_text(json.dumps(job | {"model": str(tmp_path / "model")}))
    (tmp_path / "other.csv").write_text("path,label\ngreen/0001.png,blue\n")
    fb.train(
        base / "codes", tmp_path / "model", fb.TrainConfig(("folder", str(tmp_path / "other.csv")), head="logistic")
    )
    review = Review(tmp_path / "predictions", tmp_path / "labels.csv")
    source = find_training_source(review.table)
    assert source.model and not source.made_predictions
    assert "/model/labels.parquet --labels" in review.training.plan.commands()[0]
    review.close()


def test_several_labels_are_one_change(base, tmp_path):
    review = Review(base / "predictions", tmp_path / "labels.csv")
    rows = review.views.select("uncertain")["rows"][:3]
    assert label(review, rows, ["red", None, "a"])["skipped"] == 0
    photos = review.photos(rows)
    assert [photo["label"] for photo in photos] == ["red", photos[1]["prediction"], "a"]
    review.labels.undo()
    assert [photo["label"] for photo in review.photos(rows)] == [None] * 3
    review.close()


def test_failed_photos_get_no_label(base, tmp_path):
    review = Review(base / "predictions", tmp_path / "labels.csv")
    failed, good = review.views.select("failed")["rows"], review.views.select("uncertain")["rows"]
    changed = label(review, [*failed, good[0]], ["red", "red"])
    assert len(failed) == 1 and changed["skipped"] == 1
    assert [photo["row"] for photo in changed["labels"]] == [good[0]]
    review.close()


def test_training_runs_once_and_not_beside_other_work(base, tmp_path, monkeypatch):
    hold, started = threading.Event(), []

    def work(name: str) -> Any:
        def run(*_: Any, **__: Any) -> list[Any]:
            started.append(name)
            assert hold.wait(20)
            raise fb.InputError("There is no more to be seen.")

        return run

    monkeypatch.setattr("flowers_batch.classifier.training.train", work("train"))
    monkeypatch.setattr("flowers_batch.classifier.label_issues.label_issues", work("label_issues"))
    review = Review(base / "predictions", tmp_path / "labels.csv")
    for _ in range(3):
        review.training.retraining.start()
    while not started:
        time.sleep(0.005)
    for _ in range(3):
        assert "waiting" in review.views.select("label_issues")["computing"]
    assert started == ["train"]
    hold.set()
    while review.training.retraining.status.state == "running":
        time.sleep(0.005)
    with pytest.raises(fb.InputError, match="no more"):
        while "computing" in review.views.select("label_issues"):
            time.sleep(0.005)
    assert started == ["train", "label_issues"] and review.training.retraining.status.error.startswith(
        "There is no more"
    )
    review.close()
