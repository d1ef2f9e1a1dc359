"""The report shows what a folder contains, requests nothing, and treats names as text."""

from __future__ import annotations

import html
import html.parser
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from codes_folder import write_codes
from helpers import draw_archive

import flowers_batch as fb
from flowers_batch.pages.report.content import SYNTHETIC_MARK, SYNTHETIC_TEXT
from flowers_batch.pages.report.limits import PageLimits

pytestmark = pytest.mark.usefixtures("in_threads")

EVIL = '<script>alert(1)</script>"$x^2$&'


WITHOUT_THUMBNAILS = {"picture_bytes": 0}  # so that no processes start that make them


class Page(html.parser.HTMLParser):
    """A parsed page: its tags, its text, and the addresses that it refers to."""

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
def base(tmp_path_factory) -> Path:
    """Codes, model and predictions of an archive with a hostile class, hostile names and two bad files."""
    base = tmp_path_factory.mktemp("report")
    photos = draw_archive(base / "photos", 10)
    (photos / "red").rename(photos / EVIL.replace("/", "_"))
    (photos / "blue" / "bad<b>.jpg").write_text("nothing")
    (photos / "blue" / "empty.jpg").write_bytes(b"")
    fb.encode(str(photos), str(base / "codes"), fb.EncodeConfig(network="null"))
    fb.train(str(base / "codes"), str(base / "model"), fb.TrainConfig(("folder",), head="logistic"))
    fb.predict(str(base / "codes"), str(base / "labels"), str(base / "model"))
    return base


def page_of(folder: Path, out: Path | None = None, **limits: int) -> tuple[str, Page]:
    text = Path(fb.report(str(folder), out and str(out), limits=PageLimits(**limits))).read_text()
    return text, Page(text)


def test_page_requests_nothing(base, tmp_path):
    text, page = page_of(base / "labels", tmp_path / "page.html")
    assert "default-src 'none'" in text
    assert page.addresses and all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert not {"script", "iframe", "link", "object", "form"} & set(page.tags)


def test_names_are_escaped_everywhere(base):
    text, page = page_of(base / "labels")
    assert "<script" not in text and "<b>." not in text
    assert "alert(1)" in page.text and "bad<b>.jpg" in page.text and "$x^2$" in page.text


def test_page_of_predictions_has_all_sections(base):
    _, page = page_of(base / "labels")
    sections = ("Overview", "Predicted labels", "Which classes are confused", "What could not be read", "The run")
    for part in (*sections, "accuracy on held-out photos", "green", "2 not_an_image"):
        assert part in page.text
    assert "svg" in page.tags and page.tags.count("img") >= 10
    assert "images/s" in page.text


def judged(model: Path) -> str:
    """Return the split whose photos the accuracy of a model is of: with few labels, those of cross-validation."""
    metrics = json.loads((model / "metrics.json").read_text())
    return "train" if metrics["accuracy_of"] == "cross_validation" else "test"


def test_only_held_out_photos_are_shown_as_right_or_wrong(base):
    _, page = page_of(base / "model")
    rows = pq.read_table(base / "model" / "split.parquet").to_pylist()
    shown = {row["path"] for row in rows if f" {row['path']}" in page.text}
    assert shown and shown <= {row["path"] for row in rows if row["split"] == judged(base / "model")}


def test_codes_have_a_page_and_other_folders_are_refused(base, tmp_path):
    _, page = page_of(base / "codes")
    assert "accuracy" not in page.text and "2 not_an_image" in page.text
    with pytest.raises(fb.InputError, match="neither predictions, nor codes, nor a model"):
        fb.report(str(tmp_path))


def test_accuracy_of_a_retrained_model_is_not_shown(base, tmp_path):
    model, labels = str(tmp_path / "model"), str(tmp_path / "labels")
    fb.train(str(base / "codes"), model, fb.TrainConfig(("folder",), head="logistic"))
    fb.predict(str(base / "codes"), labels, model)
    (tmp_path / "other.csv").write_text("path,label\ngreen/0001.png,blue\n")
    fb.train(str(base / "codes"), model, fb.TrainConfig(("folder", str(tmp_path / "other.csv")), head="logistic"))
    _, page = page_of(Path(labels), **WITHOUT_THUMBNAILS)
    assert "was retrained after" in page.text and "accuracy on held-out photos" not in page.text


@pytest.mark.parametrize(
    ("mark", "text"),
    [(SYNTHETIC_MARK, SYNTHETIC_TEXT), ("DRAWN.txt", "These photos are drawn by a program.")],
    ids=["this version", "version 0.1"],
)
def test_report_warns_of_synthetic_photos(base, tmp_path, mark, text):
    (base / "photos" / mark).write_text("flowers that I drew from nature\n")
    _, page = page_of(base / "labels", tmp_path / "page.html", **WITHOUT_THUMBNAILS)
    assert "drawn by a program" not in page.text, "a file's name decides nothing"
    (base / "photos" / mark).write_text(f"{text}\n")
    try:
        _, page = page_of(base / "labels", tmp_path / "page.html", **WITHOUT_THUMBNAILS)
    finally:
        (base / "photos" / mark).unlink()
    assert "drawn by a program" in page.text and "says nothing about real photos" in page.text


def test_report_warns_of_random_weights(base, tmp_path):
    _, page = page_of(base / "labels", tmp_path / "page.html", **WITHOUT_THUMBNAILS)
    assert "drawn by" not in page.text and "random" not in page.text and "real photos" not in page.text
    job = base / "labels" / "job.json"
    before = job.read_text()
    job.write_text(before.replace('"weights": "null",\n  "root"', '"weights": "random:3",\n  "root"'))
    _, page = page_of(base / "labels", tmp_path / "page.html", **WITHOUT_THUMBNAILS)
    job.write_text(before)
    assert "random weights (random:3)" in page.text and "says nothing about real photos" in page.text


def test_missing_photos_are_shown_by_name(base, tmp_path):
    (base / "photos").rename(base / "moved")
    try:
        _, page = page_of(base / "labels", tmp_path / "page.html")
    finally:
        (base / "moved").rename(base / "photos")
    assert "not readable now" in page.text and "img" not in page.tags


def test_limits_bound_classes_and_photos(base, tmp_path):
    """Only some labels have photos, and only some photos are shown of each; the tables have all labels."""
    _, page = page_of(base / "labels", tmp_path / "page.html", classes=1, photos=1)
    assert "Confusion matrix" not in page.labels
    assert ("The most common mistakes" in page.labels) == ("The most common mistakes:" in page.text)
    assert page.tags.count("img") <= 3 + 1 + 4 + 1, "a class of three kinds, a label, four bands, a mistake"
    assert all(name in page.text for name in ("green", "blue", "alert(1)"))


def test_thumbnails_end_when_the_page_is_full(base, tmp_path):
    _, page = page_of(base / "labels", tmp_path / "page.html", picture_bytes=5000)
    sizes = [len(address) for address in page.addresses if address.startswith("data:")]
    assert sum(sizes) < 5000 + max(sizes) and "Some thumbnails are left out" in page.text


def test_matrix_cells_link_to_their_photos(base, tmp_path):
    text, _ = page_of(base / "model", tmp_path / "page.html")
    rows = pq.read_table(base / "model" / "split.parquet").to_pylist()
    classes = json.loads((base / "model" / "metrics.json").read_text())["classes"]
    links = re.findall(r'<a href="#(cell-(\d+)-(\d+))" [^>]*>(\d+)</a>', text)
    assert len(links) >= 3
    for name, row, column, count in links:
        cell = text[text.index(f'id="{name}"') :].split("</ul>")[0]
        pair = classes[int(row)], classes[int(column)]
        behind = {
            html.escape(r["path"])
            for r in rows
            if r["split"] == judged(base / "model") and (r["label"], r["prediction"]) == pair
        }
        shown = set(re.findall(r"<span>(.*?)</span>", cell))
        assert len(behind) == int(count)
        assert shown and {html.unescape(path) for path in shown} <= set(map(html.unescape, behind))


@pytest.mark.slow
def test_report_on_a_thousand_classes_is_small_and_shows_the_worst(tmp_path):
    """A matrix of all classes would be a picture of a million cells, and most of the page."""
    names = [f"species {number:04d}" for number in range(1100)]
    write_codes(tmp_path / "codes", [name for name in names for _ in range(3)], spread=3, width=8)
    fb.train(tmp_path / "codes", tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    text, page = page_of(tmp_path / "model")
    assert "Confusion matrix" not in page.labels and "The most common mistakes" in page.labels
    assert "These are the 1,000 classes with the lowest F1" in page.text
    assert len(text) < 1_000_000


def chosen_labels(file: Path, random_every: int) -> str:
    """Write the labels of sixty photos of two classes, of which every so many was chosen at random."""
    names = [f"{name}/{number:03d}.jpg" for number, name in enumerate(["daisy"] * 30 + ["rose"] * 30)]
    rows = [
        f"{path},{path.split('/')[0]},{'group' if number % random_every else 'random'}"
        for number, path in enumerate(names)
    ]
    file.write_text("\n".join(["path,label,chosen", *rows, ""]))
    return str(file)


def test_report_shows_figures_of_randomly_chosen_photos_only(tmp_path):
    codes = write_codes(tmp_path / "codes", ["daisy"] * 30 + ["rose"] * 30, spread=0.5)
    files = [chosen_labels(tmp_path / f"{every}.csv", every) for every in (2, 10)]
    metrics, _ = (
        fb.train(codes, tmp_path / name, fb.TrainConfig((file,), head="logistic"))
        for file, name in zip(files, ("known", "unknown"), strict=True)
    )
    judged = metrics["cross_validation"]["per_class"]["daisy"]["photos"]
    _, known = page_of(tmp_path / "known", **WITHOUT_THUMBNAILS)
    assert f"{judged} of daisy predicted correctly" in known.labels and judged < 15
    assert f"daisy, predicted correctly: {judged} photos" in known.text, "as many photos are behind the number"
    assert "not known yet" not in known.text and "30 labelled photos were not chosen at random (group 30)" in known.text
    _, unknown = page_of(tmp_path / "unknown", **WITHOUT_THUMBNAILS)
    assert "not known yet 14 more photos chosen at random are needed" in unknown.text
    assert "accuracy is not known yet" in unknown.text and "Confusion matrix" not in unknown.labels
    assert "#mistakes" not in unknown.addresses


def test_report_names_photos_on_which_files_disagree(tmp_path):
    codes = write_codes(tmp_path / "codes", ["daisy"] * 30 + ["rose"] * 30, spread=0.5)
    anna, ben = chosen_labels(tmp_path / "anna.csv", 1), tmp_path / "ben.csv"
    ben.write_text("path,label\ndaisy/004.jpg,<b>rose\n")
    fb.train(codes, tmp_path / "model", fb.TrainConfig((anna, str(ben)), head="logistic"))
    text, page = page_of(tmp_path / "model", **WITHOUT_THUMBNAILS)
    assert f"daisy/004.jpg: daisy ({anna}), <b>rose ({ben})" in page.text and "<b>rose" not in text
