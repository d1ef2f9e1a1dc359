"""The review in a browser: labelling, undoing, views and training."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archive_runs import EVIL, predict_drawn
from browsing import (
    accessibility_faults,
    command,
    in_each_look,
    opened,
    photo_count,
    reviewing,
    serving,
    until,
    until_saved,
)
from dataset_rows import finished, labelled, predictions_batch

import flowers_batch as fb
from flowers_batch.classifier.labels_file import read_labels
from flowers_batch.dataset.schema import PREDICTIONS

pytestmark = pytest.mark.usefixtures("in_threads")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Folders `codes`, `model` and `predictions` of 91 photos."""
    return predict_drawn(tmp_path_factory.mktemp("pages"))


@pytest.mark.slow
def test_labels_survive_a_killed_server_except_those_undone(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with command(base / "predictions", labels) as (url, process), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        assert photo_count(page) == "91 photos"
        for number in range(20):
            until(page, "document.querySelector('.photo.current b').textContent")
            page.keyboard.press("123"[number % 3])
        until_saved(page)
        assert len(read_labels(str(labels)).labels) == 20
        page.keyboard.press("u")
        until_saved(page, 19)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert watched.complaints == []
    given = read_labels(str(labels)).labels
    assert len(given) == 19
    with reviewing(chromium, base / "predictions", labels) as watched:
        assert watched.page.inner_text("#saved").startswith("19 labels")
        assert photo_count(watched.page) == "72 photos", "those that have a label are not shown again"
        watched.page.select_option("#view", "labelled")
        until(watched.page, "document.getElementById('count').textContent === '19 photos'")
        watched.page.wait_for_selector(".photo.labelled")
        shown = watched.page.evaluate("[...document.querySelectorAll('.photo.labelled b')].map(b => b.textContent)")
        assert sorted(shown) == sorted(given.values())


def test_accepting_new_class_and_labelling_several_photos(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with reviewing(chromium, base / "predictions", labels) as watched:
        page = watched.page
        first = page.get_attribute("#photo-0", "title")
        predicted = page.inner_text("#photo-0 b")
        page.keyboard.press(" ")
        until_saved(page)
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
        assert page.inner_text("#classes button:last-child span") == "a new <class>"
        assert page.inner_text("#classes button:last-child small") == "3", "the number of its photos"
        given = read_labels(str(labels)).labels
        assert list(given.values()) == [predicted, *["a new <class>"] * 3, *["green"] * 2]
        assert next(iter(given)) == first
        page.keyboard.press("u")
        page.keyboard.press("u")
        until_saved(page, 1)
        assert len(read_labels(str(labels)).labels) == 1 and watched.complaints == []


def test_label_applies_to_selected_photos_not_yet_shown(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with reviewing(chromium, base / "predictions", labels) as watched:
        page = watched.page
        page.keyboard.press("Shift+End")
        page.keyboard.press("1")
        until_saved(page, 91)
        page.keyboard.press("u")
        until_saved(page, 0)
        assert read_labels(str(labels)).labels == {} and watched.complaints == []


def test_key_after_undo_labels_the_undone_photo(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with reviewing(chromium, base / "predictions", labels) as watched:
        page = watched.page
        page.route("**/api/undo", lambda route: (time.sleep(0.3), route.continue_()))
        first = page.get_attribute("#photo-0", "title")
        for key in ("1", "u", "2"):
            page.keyboard.press(key)
        until(page, "document.querySelectorAll('.photo.saving').length === 0")
        until_saved(page)
        assert list(read_labels(str(labels)).labels) == [first]
        assert page.evaluate("document.querySelector('.photo.current').id") == "photo-1"


def test_accepting_several_photos_is_one_change(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with reviewing(chromium, base / "predictions", labels) as watched:
        page = watched.page
        page.keyboard.press("Shift+End")
        page.keyboard.press(" ")
        until_saved(page, 91)
        rows = pq.read_table(base / "predictions" / "predictions", columns=["path", "prediction"]).to_pylist()
        predicted = {row["path"]: row["prediction"] for row in rows if row["prediction"]}
        assert read_labels(str(labels)).labels == predicted and len(set(predicted.values())) == 3
        page.keyboard.press("u")
        until_saved(page, 0)


def test_label_errors_are_shown_with_a_suggestion(base, chromium, tmp_path):
    """Some photos were given wrong labels; space gives them the suggested ones."""
    wrong = {f"green/{number:04d}.png": "red" for number in (2, 3, 4)}
    (tmp_path / "wrong.csv").write_text("path,label\n" + "".join(f"{path},{name}\n" for path, name in wrong.items()))
    config = fb.TrainConfig(("folder", str(tmp_path / "wrong.csv")), head="logistic")
    fb.train(base / "codes", tmp_path / "model", config)
    fb.predict(base / "codes", tmp_path / "predictions", tmp_path / "model")
    labels = tmp_path / "labels.csv"
    with reviewing(chromium, tmp_path / "predictions", labels) as watched:
        page = watched.page
        page.select_option("#view", "label_issues")
        until(page, "document.querySelector('.photo small')?.textContent.startsWith('labelled ')")
        first = page.get_attribute("#photo-0", "title")
        assert first in wrong and page.inner_text("#photo-0 b") == "green"
        assert page.inner_text("#photo-0 small").startswith("labelled red; ")
        page.focus("#grid")
        page.keyboard.press(" ")
        until_saved(page)
        assert read_labels(str(labels)).labels == {first: "green"}


def test_names_are_shown_as_text(base, chromium, tmp_path):
    with reviewing(chromium, base / "predictions", tmp_path / "labels.csv") as watched:
        page = watched.page
        seen = set()
        for _ in range(30):
            until(page, "[...document.querySelectorAll('.photo')].every(photo => photo.title)")
            seen |= set(
                page.evaluate("[...document.querySelectorAll('.photo small:nth-of-type(2)')].map(e => e.textContent)")
            )
            page.keyboard.press("PageDown")
            page.wait_for_timeout(50)
        names = {name.replace("/", "\u2044") for name in EVIL}
        expected = {f"red/{name}".replace("\n", r"\u000a").replace("\u202e", r"\u202e") for name in names}
        assert expected <= seen and len(seen) == 91
        assert not page.query_selector_all(".photo script, .photo img[onerror]")
        page.select_option("#view", "failed")
        until(page, "document.querySelector('.photo .missing')")
        assert "bad<b>.jpg" in page.inner_text("#photo-0") and "not_an_image" in page.inner_text("#photo-0")
        assert watched.complaints == []


def test_all_views_open(base, chromium, tmp_path):
    with reviewing(chromium, base / "predictions", tmp_path / "labels.csv") as watched:
        page = watched.page
        for view, count in {
            "suggestions": None,
            "label_issues": None,
            "class": 30,
            "labelled": 0,
            "failed": 1,
            "uncertain": 91,
        }.items():
            page.select_option("#view", view)
            until(page, "/^[0-9]+ photo/.test(document.getElementById('count').textContent)")
            shown = int(photo_count(page).split()[0])
            assert shown == count if count is not None else shown <= 91, view
        page.select_option("#view", "class")
        page.select_option("#class", "green")
        until(page, "document.querySelector('#photo-0 b')?.textContent === 'green'")
        assert photo_count(page) == "31 photos"
        assert watched.complaints == []


def test_thumbnails_shown_before_are_not_fetched_again(base, chromium, tmp_path):
    """Nor does the browser store them: the page itself keeps some."""
    with reviewing(chromium, base / "predictions", tmp_path / "labels.csv") as watched:
        page = watched.page
        until(page, "[...document.querySelectorAll('.photo img')].every((image) => image.src)")
        fetched = {address for address in watched.requests if "/thumbnail/" in address}
        watched.requests.clear()
        for view in ("failed", "uncertain"):
            page.select_option("#view", view)
            until(page, f"document.querySelectorAll('.photo').length {'=== 1' if view == 'failed' else '> 1'}")
        page.wait_for_selector(".photo img[src]")
        assert len(fetched) > 10 and not fetched & set(watched.requests) and watched.complaints == []


def test_page_repeats_what_the_server_had_no_time_for(base, chromium, tmp_path):
    refused = []

    def refuse_once(route) -> None:
        address = route.request.url.rpartition("/api/")[2]
        if address in refused:
            route.continue_()
        else:
            refused.append(address)
            route.fulfill(status=503, headers={"Retry-After": "0.1"}, json={"error": "The server has no time."})

    labels = tmp_path / "labels.csv"
    with serving(base / "predictions", labels) as url, opened(chromium, "about:blank") as watched:
        page = watched.page
        page.route(re.compile("/(api|thumbnail)/"), refuse_once)
        page.goto(url)
        page.wait_for_selector(".photo img[src]")
        page.keyboard.press("1")
        until_saved(page, 1)
        assert len(read_labels(str(labels)).labels) == 1 and page.is_hidden("#error")
        assert {"state", "label", "photos"} <= set(refused) and any("thumbnail" in each for each in refused)
        assert not page.query_selector_all(".photo .missing")


def test_view_is_shown_as_being_computed(base, chromium, tmp_path):
    with reviewing(chromium, base / "predictions", tmp_path / "labels.csv") as watched:
        page = watched.page
        answers = [{"computing": "fold <2> of 5"}, {"rows": [0, 1], "total": 2}]
        page.route("**/api/view?name=label_issues*", lambda route: route.fulfill(json=answers.pop(0)))
        page.select_option("#view", "label_issues")
        until(page, "document.getElementById('count').textContent === 'computing… fold <2> of 5'")
        assert not page.query_selector_all(".photo") and page.is_hidden("#empty")
        until(page, "document.getElementById('count').textContent === '2 photos'")
        assert len(page.query_selector_all(".photo")) == 2 and watched.complaints == []


def test_page_names_photos_behind_links(base, chromium, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, file in enumerate(sorted((base / "photos" / "green").glob("00*.png"))[:3]):
        (photos / f"{number}.png").symlink_to(file)
    fb.predict(photos, tmp_path / "predictions", base / "model")
    with serving(tmp_path / "predictions", tmp_path / "labels.csv") as url, opened(chromium, url) as watched:
        page = watched.page
        until(page, "document.getElementById('notices').textContent.includes('3 of 3 photos are links')")
        page.wait_for_selector("#photo-0 .missing")
        assert "link to a file outside" in page.inner_text("#photo-0")
        assert accessibility_faults(page) == []


@pytest.mark.slow
def test_two_thousand_classes_are_found_by_typing(chromium, tmp_path):
    names = [f"species {number:04d}" for number in range(2000)]
    rows = [labelled(f"{number:04d}.jpg", name, number / 2000) for number, name in enumerate(names)]
    labels = tmp_path / "labels.csv"
    finished(tmp_path / "predictions", PREDICTIONS, [predictions_batch(rows)])
    with serving(tmp_path / "predictions", labels) as url, opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo")
        assert len(page.query_selector_all("#classes button")) == 100
        assert "and 1,900 more" in page.inner_text("#classes")
        page.keyboard.press("n")
        page.keyboard.type("1234")
        offered = "[...document.querySelectorAll('#class-names option')].map(option => option.value)"
        assert page.evaluate(offered) == ["species 1234"]
        page.fill("#class-name", "species 1234")
        page.keyboard.press("Enter")
        until_saved(page, 1)
        page.select_option("#view", "class")
        page.select_option("#class", "species 1234")
        until(page, "document.getElementById('count').textContent === '2 photos'")
        assert read_labels(str(labels)).labels == {"0000.jpg": "species 1234"}
        page.wait_for_selector("#photo-1[title]")  # a tile has no name until its photo was described
        assert accessibility_faults(page) == []


@pytest.mark.slow
def test_training_shows_accuracy_before_and_after(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with command(base / "predictions", labels) as (url, process), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        for _ in range(6):
            page.keyboard.press(" ")
        page.click("#train-again")
        page.wait_for_selector("#training[open]")
        commands = page.inner_text("#commands").splitlines()
        page.click("#train")
        page.wait_for_selector("#training-result:not([hidden])", timeout=90_000)
        metrics = json.loads((base / "model-corrected" / "metrics.json").read_text())
        assert page.inner_text("#after") == f"{metrics['test']['accuracy']:.1%}"
        assert re.fullmatch(r"\d+\.\d%", page.inner_text("#before"))
        assert accessibility_faults(page) == [] and watched.complaints == []
        process.send_signal(signal.SIGINT)
        assert process.stdout
        assert process.stdout.read().splitlines() == commands and process.wait() == 0
    assert (
        f"train {base}/codes {base}/model-corrected --labels {base}/model/labels.parquet --labels {labels}"
        in commands[0]
    )
    assert commands[1].endswith(f"--model {base}/model-corrected")


@pytest.mark.slow
def test_review_is_accessible_also_on_a_phone(base, chromium, tmp_path):
    with serving(base / "predictions", tmp_path / "labels.csv") as url:
        for watched in in_each_look(chromium, url):
            watched.page.evaluate("document.getElementById('help').showModal()")
