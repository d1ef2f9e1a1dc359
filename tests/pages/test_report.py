"""The page shows what is there, asks nobody for anything, and takes no name for HTML."""

from __future__ import annotations

import hashlib
import html
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import draw_archive

import flowers_batch as fb
from flowers_batch.pages.report import album, held_out, survey
from flowers_batch.pages.report.held_out import _mistakes
from flowers_batch.pages.report.page import DRAWN
from flowers_batch.pages.report.survey import _Copies, _ranks, _Samples

EVIL = '<script>alert(1)</script>"$x^2$&'


class Page(html.parser.HTMLParser):
    """What a browser would make of the page: its tags, its text, and what each tag asks for."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.labels: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]

        self.labels += [value for name, value in attributes if name == "aria-label"]

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
    _, page = page_of(base / "model")
    rows = pq.read_table(base / "model" / "split.parquet").to_pylist()
    shown = {row["path"] for row in rows if f" {row['path']}" in page.text}
    assert shown == {row["path"] for row in rows if row["split"] == "test"}


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
    """Only some labels have photos, and only some photos are shown of each; the tables have all labels."""
    for module in (held_out, survey):
        monkeypatch.setattr(module, "_CLASSES", 1)
        monkeypatch.setattr(module, "_SHOWN", 1)
    _, page = page_of(base / "labels", tmp_path / "page.html")
    assert "commonest mistakes" in " ".join(page.labels) or "is taken for" not in page.text
    assert page.tags.count("img") <= 3 + 1 + 4 + 1, "a class of three kinds, a label, four bands, a mistake"
    assert all(name in page.text for name in ("green", "blue", "alert(1)"))


def test_pictures_end_when_the_page_is_full(base, tmp_path, monkeypatch):
    monkeypatch.setattr(album, "_PICTURES_BYTES", 5000)
    _, page = page_of(base / "labels", tmp_path / "page.html")
    sizes = [len(address) for address in page.addresses if address.startswith("data:")]
    assert sum(sizes) < 5000 + max(sizes) and "Some pictures are left out" in page.text


def test_each_number_of_the_matrix_opens_its_photos(base, tmp_path):
    """A number's link leads to as many of its photos as there are, and no others."""
    text, _ = page_of(base / "model", tmp_path / "page.html")
    rows = pq.read_table(base / "model" / "split.parquet").to_pylist()
    classes = json.loads((base / "model" / "metrics.json").read_text())["classes"]
    links = re.findall(r'<a href="#(cell-(\d+)-(\d+))" [^>]*>(\d+)</a>', text)
    assert len(links) >= 3
    for name, row, column, count in links:
        cell = text[text.index(f'id="{name}"') :].split("</ul>")[0]
        told = classes[int(row)], classes[int(column)]
        behind = {
            html.escape(r["path"]) for r in rows if r["split"] == "test" and (r["label"], r["prediction"]) == told
        }
        shown = set(re.findall(r"<span>(.*?)</span>", cell))
        assert len(behind) == int(count) and {html.unescape(path) for path in shown} == set(map(html.unescape, behind))


def rows_of(paths: list[str], digests: list[bytes]) -> pa.RecordBatch:
    columns = [pa.array(paths), pa.array(digests, pa.binary(32)), pa.array([0.5] * len(paths), pa.float32())]
    return pa.RecordBatch.from_arrays(columns, ["path", "sha256", "probability"])


def test_samples_are_the_same_however_the_rows_come():
    digests = [hashlib.sha256(b"%d" % number).digest() for number in range(300)]
    keys = np.array(["ab"[number % 2] for number in range(300)])
    found = []
    for size in (300, 7):
        samples = _Samples()
        for start in range(0, 300, size):
            here = slice(start, start + size)
            rows = rows_of([str(number) for number in range(300)][here], digests[here])
            samples.add(keys[here], _ranks(rows), rows)
        found.append([list(samples.captions(key)) for key in "ab"])
    assert found[0] == found[1]
    assert found[0][0] == sorted(map(str, range(0, 300, 2)), key=lambda name: digests[int(name)])[:6]


def test_copies_of_a_large_archive_are_found_whole_within_bounds(monkeypatch):
    monkeypatch.setattr(survey, "_DIGESTS", 20)
    digests = [hashlib.sha256(b"%d" % (number % 400)).digest() for number in range(1000)]
    copies = _Copies()
    for start in range(0, 1000, 10):
        rows = rows_of([str(number) for number in range(start, start + 10)], digests[start : start + 10])
        copies.add(_ranks(rows), rows)
    assert 5 < len(copies._sets) <= 20
    for found in copies._sets.values():
        whole = list(range(int(found.paths[0]), 1000, 400))
        assert [int(path) for path in found.paths] == whole and found.photos == len(whole)


def test_many_classes_are_listed_instead_of_drawn():
    matrix = [[5, 2, 0], [1, 6, 0], [0, 3, 4]]
    assert _mistakes(matrix, ["a", "b", "c"]) == [("c", "b", 3), ("a", "b", 2), ("b", "a", 1)]
