"""The page shows what is there, asks nobody for anything, and takes no name for HTML."""

from __future__ import annotations

import html.parser
import re
import sys
from pathlib import Path

import pytest
from conftest import draw_archive

import flowers_batch as fb
from flowers_batch.report import DRAWN

EVIL = '<script>alert(1)</script>"$x^2$&'


class Page(html.parser.HTMLParser):
    """What a browser would make of the page: its tags, its text, and what each tag asks for."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]

    def handle_data(self, data):
        self.text += f" {data.strip()}"


@pytest.fixture(scope="module")
def base(local_ray, tmp_path_factory) -> Path:
    """Codes, model and predictions of an archive with a hostile class, hostile names and two bad files."""
    base = tmp_path_factory.mktemp("report")
    photos = draw_archive(base / "photos", 10)
    (photos / "red").rename(photos / EVIL.replace("/", "_"))
    (photos / "blue" / "bad<b>.jpg").write_text("nothing")
    (photos / "blue" / "empty.jpg").write_bytes(b"")
    fb.encode(str(photos), str(base / "codes"), fb.EncodeConfig(network="null"))
    fb.train(str(base / "codes"), str(base / "model"))
    fb.predict(str(base / "codes"), str(base / "labels"), str(base / "model"))
    return base


def page_of(folder: Path, out: Path | None = None) -> tuple[str, Page]:
    text = Path(fb.report(str(folder), out and str(out))).read_text()
    return text, Page(text)


def test_the_page_asks_nobody_for_anything(base, tmp_path):
    text, page = page_of(base / "labels", tmp_path / "page.html")
    assert "default-src 'none'" in text
    assert page.addresses and all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert not {"script", "iframe", "link", "object", "form"} & set(page.tags)


def test_names_are_text_wherever_they_stand(base):
    text, page = page_of(base / "labels")
    assert "<script" not in text and "<b>." not in text
    assert "alert(1)" in page.text and "bad<b>.jpg" in page.text and "$x^2$" in page.text


def test_predictions_show_accuracy_confusion_photos_failures_and_speed(base):
    _, page = page_of(base / "labels")
    for part in ("accuracy on held-out photos", "Labels given", "green", "What could not be read", "2 not_an_image"):
        assert part in page.text
    assert "svg" in page.tags and page.tags.count("img") >= 10
    assert "images/s" in page.text


def test_only_held_out_photos_are_shown_as_right_or_wrong(base):
    import pyarrow.parquet as pq

    _, page = page_of(base / "model")
    rows = pq.read_table(base / "model" / "split.parquet").to_pylist()
    shown = {row["path"] for row in rows if f" {row['path']}" in page.text}
    assert shown == {row["path"] for row in rows if row["side"] == "test"}


def test_codes_have_a_page_too_and_other_folders_have_none(base, tmp_path):
    _, page = page_of(base / "codes")
    assert "accuracy" not in page.text and "2 not_an_image" in page.text
    with pytest.raises(fb.InputError, match="neither predictions, nor codes, nor a model"):
        fb.report(str(tmp_path))


def test_the_accuracy_of_a_model_that_was_trained_anew_is_not_shown(base, tmp_path):
    model, labels = str(tmp_path / "model"), str(tmp_path / "labels")
    fb.train(str(base / "codes"), model)
    fb.predict(str(base / "codes"), labels, model)
    fb.train(str(base / "codes"), model, fb.TrainConfig(head="mlp"))
    _, page = page_of(Path(labels))
    assert "trained anew" in page.text and "accuracy on held-out photos" not in page.text


def test_drawn_photos_and_random_weights_are_told(base, tmp_path):
    _, page = page_of(base / "labels", tmp_path / "page.html")
    assert "drawn by" not in page.text and "random" not in page.text and "real photos" not in page.text
    (base / "photos" / DRAWN).write_text("drawn")
    _, page = page_of(base / "labels", tmp_path / "page.html")
    (base / "photos" / DRAWN).unlink()
    assert "drawn by a program" in page.text and "says nothing about real photos" in page.text
    job = base / "labels" / "job.json"
    before = job.read_text()
    job.write_text(before.replace('"weights": "null",\n  "root"', '"weights": "random:3",\n  "root"'))
    _, page = page_of(base / "labels", tmp_path / "page.html")
    job.write_text(before)
    assert "random (random:3)" in page.text and "says nothing about real photos" in page.text


def test_photos_that_are_gone_leave_their_names(base, tmp_path):
    (base / "photos").rename(base / "moved")
    try:
        _, page = page_of(base / "labels", tmp_path / "page.html")
    finally:
        (base / "moved").rename(base / "photos")
    assert "not readable now" in page.text and "img" not in page.tags


def test_a_page_of_many_labels_stays_light(base, tmp_path, monkeypatch):
    """Only some labels have photos, and only some photos are shown of each; the table has all labels."""
    report = sys.modules["flowers_batch.report"]  # the name itself is the call
    monkeypatch.setattr(report, "_LABELS", 1)
    monkeypatch.setattr(report, "_SHOWN_A_LABEL", 2)
    monkeypatch.setattr(report, "_SHOWN", 0)
    monkeypatch.setattr(report, "_CHART_CLASSES", 2)
    _, page = page_of(base / "labels", tmp_path / "page.html")
    assert page.tags.count("img") == 2 and "svg" not in page.tags
    assert all(name in page.text for name in ("green", "blue", "alert(1)"))


def test_many_classes_are_listed_instead_of_drawn():
    from flowers_batch.report import _mistakes

    matrix = [[5, 2, 0], [1, 6, 0], [0, 3, 4]]
    assert _mistakes(matrix, ["a", "b", "c"]) == [("c", "b", 3), ("a", "b", 2), ("b", "a", 1)]
