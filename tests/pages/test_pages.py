"""Both pages in a real browser: what they show, what they ask for, and what a person does with them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from axe_playwright_python.sync_playwright import Axe
from helpers import draw_archive

import flowers_batch as fb
from flowers_batch.classifier.labels import read_labels

EVIL = (
    "<script>alert(1)</script>.png",
    '"quo\'te".png',
    "new\nline.png",
    "right\u202etoleft.png",
    "<img src=x onerror=alert(1)>.png",
)


@pytest.fixture(scope="module")
def base(local_ray, tmp_path_factory) -> Path:
    """Codes, model and predictions of 90 pictures, among them hostile names, copies, and files that are no pictures."""
    base = tmp_path_factory.mktemp("pages")
    photos = draw_archive(base / "photos", 30)
    for number, name in enumerate(EVIL):
        (photos / "red" / f"{number:04d}.png").rename(photos / "red" / name.replace("/", "\u2044"))
    (photos / "green" / "copy.png").write_bytes((photos / "green" / "0001.png").read_bytes())
    (photos / "blue" / "bad<b>.jpg").write_text("nothing")
    fb.encode(photos, base / "codes", fb.EncodeConfig(network="null"))
    fb.train(base / "codes", base / "model", fb.TrainConfig(head="logistic"))
    fb.predict(base / "codes", base / "predictions", base / "model")
    return base


@dataclass
class Watched:
    """A page, and what it did that it should not."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(chromium, url: str, **options) -> Iterator[Watched]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, **options)
    watched = Watched(context.new_page())
    page = watched.page
    page.on("console", lambda message: watched.complaints.append(message.text))
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on("dialog", lambda dialog: watched.complaints.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda request: watched.requests.append(request.url))
    page.set_default_timeout(20_000)
    page.goto(url)
    try:
        yield watched
    finally:
        context.close()


def serious_faults(page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("folder", ["predictions", "model", "codes"])
def test_the_report_asks_nobody_and_everyone_can_read_it(base, chromium, tmp_path, folder):
    page = fb.report(base / folder, tmp_path / "report.html")
    for scheme in ("light", "dark"):
        with opened(chromium, f"file://{page}", color_scheme=scheme) as watched:
            watched.page.wait_for_load_state("networkidle")
            for summary in watched.page.query_selector_all("summary"):
                if not summary.evaluate("element => element.parentElement.open"):
                    summary.click()
            assert serious_faults(watched.page) == []
            assert watched.complaints == []
            assert [url for url in watched.requests if not url.startswith(("file://", "data:image/webp"))] == []
            broken = "[...document.images].filter(image => !image.naturalWidth).length"
            assert watched.page.evaluate(broken) == 0


def test_a_number_of_the_matrix_opens_its_photos_and_no_others(base, chromium, tmp_path):
    page = fb.report(base / "model", tmp_path / "report.html")
    rows = pq.read_table(base / "model" / "split.parquet").to_pylist()
    with opened(chromium, f"file://{page}") as watched:
        links = watched.page.query_selector_all(".matrix a")
        assert links
        for link in links:
            count, label = link.inner_text(), link.get_attribute("aria-label").split(" of ", 1)[1]
            true, _, taken_for = re.sub(" labelled rightly$", "", label).partition(" taken for ")
            link.focus()
            watched.page.keyboard.press("Enter")  # by keyboard alone
            shown = [cell for cell in watched.page.query_selector_all(".cell") if cell.is_visible()]
            assert len(shown) == 1 and shown[0].evaluate("element => element === document.activeElement")
            here = [(row["label"], row["prediction"]) == (true, taken_for or true) for row in rows]
            behind = [row["path"] for row, fits in zip(rows, here, strict=True) if fits and row["split"] == "test"]
            assert len(behind) == int(count)
            names = [item.inner_text() for item in shown[0].query_selector_all("li span")]
            assert set(names) <= set(behind) and len(names) == min(6, len(behind))


def test_the_report_fits_a_phone(base, chromium, tmp_path):
    page = fb.report(base / "predictions", tmp_path / "report.html")
    with opened(chromium, f"file://{page}") as watched:
        watched.page.set_viewport_size({"width": 360, "height": 740})
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 360


@contextmanager
def served(predictions: Path, labels: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command, as a person calls it: the page's address, and the process."""
    command = [
        sys.executable,
        "-m",
        "flowers_batch",
        "review",
        str(predictions),
        "--labels",
        str(labels),
        "--no-open",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


def until(page, expression: str) -> None:
    """Waits until an expression is true; Playwright's own way to do so is forbidden by the page's policy."""
    deadline = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


def until_saved(page, labels: int) -> None:
    """Waits until the page says that so many labels are in the file."""
    until(page, f"document.getElementById('saved').textContent.startsWith('{labels} ')")


def count_of(page) -> str:
    return page.inner_text("#count")


def wait_until_saved(page) -> None:
    until(page, "/^[0-9]/.test(document.getElementById('saved').textContent)")


def test_labels_by_keyboard_outlive_a_killed_server_but_for_what_was_undone(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with served(base / "predictions", labels) as (url, process), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        assert count_of(page) == "91 photos"
        for number in range(20):
            until(page, "document.querySelector('.photo.here b').textContent")
            page.keyboard.press("123"[number % 3])
        wait_until_saved(page)
        assert len(read_labels(str(labels)).labels) == 20
        page.keyboard.press("u")
        until_saved(page, 19)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert watched.complaints == []
    given = read_labels(str(labels)).labels
    assert len(given) == 19
    with served(base / "predictions", labels) as (url, _), opened(chromium, url) as watched:
        watched.page.wait_for_selector(".photo img[src]")
        assert watched.page.inner_text("#saved").startswith("19 labels")
        assert count_of(watched.page) == "72 photos", "those that have a label are not shown again"
        watched.page.select_option("#view", "labelled")
        until(watched.page, "document.getElementById('count').textContent === '19 photos'")
        watched.page.wait_for_selector(".photo.mine")
        shown = watched.page.evaluate("[...document.querySelectorAll('.photo.mine b')].map(b => b.textContent)")
        assert sorted(shown) == sorted(given.values())


def test_several_photos_at_once_a_new_class_and_acceptance(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with served(base / "predictions", labels) as (url, _), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        first = page.get_attribute("#photo-0", "title")
        told = page.inner_text("#photo-0 b")
        page.keyboard.press(" ")
        wait_until_saved(page)
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        assert len(page.query_selector_all(".photo[aria-selected=true]")) == 3
        page.keyboard.press("n")
        page.keyboard.type("a new <class>")
        page.keyboard.press("Enter")
        until_saved(page, 4)
        page.click("#photo-6")
        page.click("#photo-8", modifiers=["Control"])
        page.click("#classes button:has-text('green')")
        until_saved(page, 6)
        assert page.inner_text("#classes button:last-child").endswith("a new <class>")
        given = read_labels(str(labels)).labels
        assert list(given.values()) == [told, *["a new <class>"] * 3, *["green"] * 2]
        assert next(iter(given)) == first
        page.keyboard.press("u")
        page.keyboard.press("u")
        until_saved(page, 1)
        assert len(read_labels(str(labels)).labels) == 1 and watched.complaints == []


def test_all_that_is_selected_gets_the_label_also_what_was_not_seen(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with served(base / "predictions", labels) as (url, _), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        page.keyboard.press("Shift+End")
        page.keyboard.press("1")
        until_saved(page, 91)
        page.keyboard.press("u")
        until_saved(page, 0)
        assert read_labels(str(labels)).labels == {} and watched.complaints == []


def test_a_key_after_undo_is_for_the_photo_that_was_undone(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with served(base / "predictions", labels) as (url, _), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        page.route("**/api/undo", lambda route: (time.sleep(0.3), route.continue_()))
        first = page.get_attribute("#photo-0", "title")
        for key in ("1", "u", "2"):
            page.keyboard.press(key)
        until(page, "document.querySelectorAll('.photo.saving').length === 0")
        wait_until_saved(page)
        assert list(read_labels(str(labels)).labels) == [first]
        assert page.evaluate("document.querySelector('.photo.here').id") == "photo-1"


def test_what_several_photos_are_accepted_as_is_one_change(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with served(base / "predictions", labels) as (url, _), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        page.keyboard.press("Shift+End")
        page.keyboard.press(" ")
        until_saved(page, 91)
        rows = pq.read_table(base / "predictions" / "predictions", columns=["path", "prediction"]).to_pylist()
        told = {row["path"]: row["prediction"] for row in rows if row["prediction"]}
        assert read_labels(str(labels)).labels == told and len(set(told.values())) == 3
        page.keyboard.press("u")
        until_saved(page, 0)


def test_labels_that_look_wrong_are_shown_with_what_they_should_be(base, chromium, tmp_path):
    """Some photos were given wrong labels; space gives them the suggested ones."""
    wrong = {f"green/{number:04d}.png": "red" for number in (2, 3, 4)}
    (tmp_path / "wrong.csv").write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in wrong.items()))
    config = fb.TrainConfig(("folder", str(tmp_path / "wrong.csv")), head="logistic")
    fb.train(base / "codes", tmp_path / "model", config)
    fb.predict(base / "codes", tmp_path / "predictions", tmp_path / "model")
    labels = tmp_path / "labels.csv"
    with served(tmp_path / "predictions", labels) as (url, _), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        page.select_option("#view", "suspects")
        until(page, "document.querySelector('.photo small')?.textContent.startsWith('labelled ')")
        first = page.get_attribute("#photo-0", "title")
        assert first in wrong and page.inner_text("#photo-0 b") == "green"
        assert page.inner_text("#photo-0 small").startswith("labelled red; ")
        page.focus("#grid")
        page.keyboard.press(" ")
        wait_until_saved(page)
        assert read_labels(str(labels)).labels == {first: "green"}


def test_names_are_text_on_the_review_page(base, chromium, tmp_path):
    with served(base / "predictions", tmp_path / "labels.csv") as (url, _), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        seen = set()
        for _ in range(30):
            until(page, "[...document.querySelectorAll('.photo')].every(photo => photo.title)")
            seen |= set(
                page.evaluate("[...document.querySelectorAll('.photo small:last-child')].map(e => e.textContent)")
            )
            page.keyboard.press("PageDown")
            page.wait_for_timeout(50)
        names = {name.replace("/", "\u2044") for name in EVIL}
        expected = {f"red/{name}".replace("\n", r"\u000a").replace("\u202e", r"\u202e") for name in names}
        assert expected <= seen and len(seen) == 91
        assert not page.query_selector_all(".photo script, .photo img[onerror]")
        page.select_option("#view", "failed")
        until(page, "document.querySelector('.photo .gone')")
        assert "bad<b>.jpg" in page.inner_text("#photo-0") and "not_an_image" in page.inner_text("#photo-0")
        assert watched.complaints == []


def test_each_view_opens(base, chromium, tmp_path):
    with served(base / "predictions", tmp_path / "labels.csv") as (url, _), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        for view, count in {
            "different": None,
            "suspects": None,
            "class": 30,
            "labelled": 0,
            "failed": 1,
            "uncertain": 91,
        }.items():
            page.select_option("#view", view)
            until(page, "/photo/.test(document.getElementById('count').textContent)")
            shown = int(count_of(page).split()[0])
            assert shown == count if count is not None else shown <= 91, view
        page.select_option("#view", "class")
        page.select_option("#class", "green")
        until(page, "document.querySelector('#photo-0 b')?.textContent === 'green'")
        assert count_of(page) == "31 photos"
        assert watched.complaints == []


def test_training_again_from_the_page_shows_accuracy_before_and_after(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with served(base / "predictions", labels) as (url, process), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        for _ in range(6):
            page.keyboard.press(" ")
        page.click("#finish")
        page.wait_for_selector("#training[open]")
        commands = page.inner_text("#commands").splitlines()
        page.click("#train")
        page.wait_for_selector("#training-result:not([hidden])", timeout=90_000)
        metrics = json.loads((base / "model-corrected" / "metrics.json").read_text())
        assert page.inner_text("#after") == f"{metrics['test']['accuracy']:.1%}"
        assert re.fullmatch(r"\d+\.\d%", page.inner_text("#before"))
        assert serious_faults(page) == [] and watched.complaints == []
        process.send_signal(signal.SIGINT)
        assert process.stdout
        assert process.stdout.read().splitlines() == commands and process.wait() == 0
    assert f"train {base}/codes {base}/model-corrected --labels folder --labels {labels}" in commands[0]
    assert commands[1].endswith(f"--model {base}/model-corrected")


def test_everyone_can_use_the_review_page_also_on_a_phone(base, chromium, tmp_path):
    with served(base / "predictions", tmp_path / "labels.csv") as (url, _):
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 360)):
            with opened(chromium, url, color_scheme=scheme) as watched:
                page = watched.page
                page.set_viewport_size({"width": width, "height": 740})
                page.wait_for_selector(".photo img[src]")
                assert serious_faults(page) == []
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                page.evaluate("document.getElementById('help').showModal()")
                assert serious_faults(page) == []
                assert all(address.startswith((url, "data:")) for address in watched.requests)
