"""Photos behind links that lead outside the photos' folder: shown with --follow-links only, and counted at start."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from http.cookiejar import CookieJar
from itertools import compress
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urljoin
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
from archive_runs import predict_with_link

import flowers_batch as fb
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.pages.review.outside_links import outside_links
from flowers_batch.pages.review.photo_table import PhotoTable
from flowers_batch.pages.review.review import Review
from flowers_batch.pages.review.row_images import RowImages
from flowers_batch.pages.thumbnails import NoThumbnail

pytestmark = pytest.mark.usefixtures("in_threads")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Folders `codes`, `model` and `predictions` of 31 photos, one of them a link to a file outside `photos`."""
    return predict_with_link(tmp_path_factory.mktemp("links"))


@pytest.fixture(scope="module")
def hub(base, tmp_path_factory) -> Path:
    """Predictions for a folder as a download cache makes it, in which all twenty photos are links."""
    folder = tmp_path_factory.mktemp("hub")
    for file in sorted([*(base / "photos" / "red").glob("00*"), *(base / "photos" / "green").glob("00*")]):
        blob = folder / "blobs" / f"{file.parent.name}{file.stem}"
        link = folder / "snapshots" / "abc" / file.parent.name / file.name
        for each in (blob, link):
            each.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(file.read_bytes())
        link.symlink_to(Path("../../../blobs") / blob.name)
    fb.predict(folder / "snapshots" / "abc", folder / "predictions", base / "model")
    return folder


def sentence_for(predictions: Path, most: int = 100) -> str:
    table = PhotoTable(open_run(predictions, PREDICTIONS))
    return outside_links(table, RowImages(table).photos, most)


def test_photos_behind_links_are_counted_and_named(base, hub):
    photos = hub / "snapshots" / "abc"
    words = "photos are links to files outside"
    assert sentence_for(hub / "predictions") == f"20 of 20 {words} {photos}: run with --follow-links to show them."
    assert sentence_for(hub / "predictions", 7).startswith(f"About 100% of the {words}")
    assert sentence_for(base / "predictions").startswith(f"1 of 32 {words} {base}/photos")


def test_lists_and_folders_without_links_have_no_photos_outside(base, hub, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in sorted((hub / "snapshots" / "abc" / "red").iterdir())))
    fb.predict(listed, tmp_path / "predictions", base / "model")
    assert sentence_for(tmp_path / "predictions") == ""
    (base / "photos" / "red" / "link.png").rename(tmp_path / "link.png")
    try:
        fb.predict(base / "photos", tmp_path / "without", base / "model")
    finally:
        (tmp_path / "link.png").rename(base / "photos" / "red" / "link.png")
    assert sentence_for(tmp_path / "without") == ""


def test_photos_behind_links_are_shown_if_links_are_followed(hub, tmp_path):
    review = Review(hub / "predictions", tmp_path / "labels.csv")
    with pytest.raises(NoThumbnail, match="a link to a file outside"):
        review.images.thumbnail(0)
    review.close()
    review = Review(hub / "predictions", tmp_path / "labels.csv", follow_links=True)
    assert all(review.images.thumbnail(row)[:4] == b"RIFF" for row in range(20))
    assert outside_links(review.table, review.images.photos) == ""
    review.close()


def test_report_shows_photos_behind_links_only_if_links_are_followed(hub, tmp_path):
    messages = []
    reporter = SimpleNamespace(message=messages.append, update=lambda progress: None)
    target = tmp_path / "page.html"
    page = Path(fb.report(hub / "predictions", target, reporter=reporter)).read_text()
    shown = page.count("data:image/webp")  # of the photos that the model was tested on
    (sentence,) = (each for each in messages if re.match(r"(\d+) of \1 chosen photos are links ", each))
    links = int(sentence.partition(" ")[0])
    assert sentence in page
    told = [each for each in messages if " chosen photos are links " in each]
    page = Path(
        fb.report(hub / "predictions", tmp_path / "page.html", follow_links=True, reporter=reporter)
    ).read_text()
    assert page.count("data:image/webp") >= shown + links
    assert [each for each in messages if " chosen photos are links " in each] == told
    assert "are links to files" not in page


def test_folder_of_photos_may_itself_be_a_link(base, tmp_path):
    (tmp_path / "link").symlink_to(base / "photos")
    fb.predict(tmp_path / "link", tmp_path / "predictions", base / "model")
    assert sentence_for(tmp_path / "predictions").startswith("1 of 32 photos")


def test_linked_folder_is_outside_unless_it_is_in_the_photos_folder(base, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(base / "photos" / "blue", photos / "blue")
    (photos / "red").symlink_to(base / "photos" / "red")
    (photos / "more").symlink_to(photos / "blue")
    fb.predict(photos, tmp_path / "predictions", base / "model")
    review = Review(tmp_path / "predictions", tmp_path / "labels.csv")
    paths = review.table.paths.to_pylist()
    refused = [*compress(paths, review.images.photos.are_links_outside(paths))]
    assert refused and {path.split("/")[0] for path in refused} == {"red"}
    assert outside_links(review.table, review.images.photos).startswith(f"{len(refused)} of {len(review.table)} photos")
    review.close()


@pytest.mark.parametrize("options", [[], ["--follow-links"]])
def test_command_says_at_start_how_many_photos_are_not_shown(hub, tmp_path, options):
    arguments = ["review", str(hub / "predictions"), "--labels", str(tmp_path / "labels.csv"), "--no-open", *options]
    sentence = "20 of 20 photos are links to files outside"
    with subprocess.Popen(
        [sys.executable, "-m", "flowers_batch", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout and process.stderr
            address = process.stdout.readline().strip()
            assert process.stderr.readline().startswith("review: photos are read from ")
            if not options:
                assert process.stderr.readline().startswith(f"review: {sentence}")
            browser = build_opener(HTTPCookieProcessor(cookies := CookieJar()))
            browser.open(address).close()
            (cookie,) = cookies  # of the page's own path
            with browser.open(urljoin(address, f"{cookie.path}api/state")) as answer:
                notices = "".join(json.load(answer)["notices"])
            assert (sentence in notices) == (not options)
            process.terminate()
            assert process.stderr.read() == "" and process.wait(20) == 0
        finally:
            process.kill()
