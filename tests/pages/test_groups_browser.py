"""The review of codes in a browser: groups of photos, a classifier that is fitted meanwhile, and the finish."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from archive_runs import predict_drawn
from browsing import command, in_each_look, label_selected, opened, reviewing, serving, until, until_saved

from flowers_batch.classifier.labels_file import read_labels

pytestmark = pytest.mark.usefixtures("in_threads")
SELECTED = ".photo[aria-selected=true]"


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> Path:
    """Codes of 91 photos, one of which failed."""
    return predict_drawn(tmp_path_factory.mktemp("pages")) / "codes"


def label_group(page) -> str:
    """Label the selected photos of the current group as most of them are: by the name of their folder."""
    until(page, f"[...document.querySelectorAll('{SELECTED}')].every((photo) => photo.title)")
    titles = page.evaluate(f"[...document.querySelectorAll('{SELECTED}')].map((photo) => photo.title)")
    name = Counter(title.partition("/")[0] for title in titles).most_common(1)[0][0]
    label_selected(page, name)
    return name


def until_in_file(page, labels: Path, is_true: Callable[[Mapping[str, str]], bool]) -> None:
    """Wait until something is true of the labels in a file, by path."""
    for _ in range(1000):
        if is_true(read_labels(str(labels)).labels):
            return
        page.wait_for_timeout(20)
    raise AssertionError(read_labels(str(labels)).labels)


def group(page) -> str:
    """Return the title of the current group."""
    return page.inner_text("#group-title")


@pytest.mark.slow
def test_archive_without_labels_is_labelled(codes, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with command(codes, labels) as (url, process), opened(chromium, url) as watched:
        page = watched.page
        page.wait_for_selector(".photo img[src]")
        assert "press n, type the name of the first one" in page.inner_text("#classes")
        for _ in range(10):
            label_group(page)
        until_saved(page)
        until(page, "document.getElementById('fit').textContent.startsWith('fitted to ')")
        given = read_labels(str(labels))
        assert len(given.labels) >= 10 and set(given.chosen.values()) == {"group", "random"}
        page.keyboard.press("Enter")
        page.wait_for_selector("#large-top button")
        until(page, "document.getElementById('large-image').src.startsWith('data:image/webp')")
        page.keyboard.press("Escape")
        page.keyboard.press("s")
        until(page, "document.getElementById('count').textContent.includes('similar to')")
        label_selected(page, "strange")  # which may have had a label
        until_in_file(page, labels, lambda now: "strange" in now.values())
        page.keyboard.press("u")
        until_in_file(page, labels, lambda now: now == given.labels)
        assert watched.complaints == []
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with command(codes, labels) as (url, _), opened(chromium, url) as watched:
        page = watched.page
        until_saved(page, len(given.labels))
        until(page, "document.getElementById('fit').textContent.startsWith('fitted to ')")
        page.click("#finish-button")
        page.click("#finish-start")
        page.wait_for_selector("#finish-bar:not([hidden])")
        page.wait_for_selector("#finish-start:not([disabled])", timeout=240_000)
        assert page.is_visible("#finish-result"), page.inner_text("#finish-step")
        with page.context.expect_page() as opening:
            page.click("text=Open the report")
        assert "classes" in opening.value.inner_text("body")
        predictions = page.inner_text("#finish-predictions")
        assert (Path(predictions) / "_SUCCESS").is_file() and watched.complaints == []
        assert page.inner_text("#finish-tag") == f"flowers-batch tag {predictions} --dry-run"


def test_class_labels_selected_photos_of_a_group(codes, chromium, tmp_path):
    """The others stay without a label, or get another one first."""
    labels = tmp_path / "labels.csv"
    with reviewing(chromium, codes, labels) as watched:
        page = watched.page
        first, size = group(page), len(page.query_selector_all(SELECTED))
        assert size > 2
        page.click(f"{SELECTED} >> nth=1")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("x")
        assert len(page.query_selector_all(SELECTED)) == size - 2
        page.keyboard.press("x")
        page.keyboard.press("i")
        assert len(page.query_selector_all(SELECTED)) == 1
        label_selected(page, "odd")
        assert group(page) == first and len(page.query_selector_all(SELECTED)) == size - 1
        label_selected(page, "even")
        until_saved(page, size)
        assert group(page) != first
        assert Counter(read_labels(str(labels)).labels.values()) == {"even": size - 1, "odd": 1}
        until(page, "document.querySelector('.heading').textContent.includes('1 odd')")
        page.keyboard.press("u")
        until_saved(page, 1)
        assert group(page) == first and len(page.query_selector_all(SELECTED)) == size - 1
        page.keyboard.press("x")
        page.keyboard.press(".")
        page.keyboard.press(",")
        assert len(page.query_selector_all(SELECTED)) == size - 2, "it stays taken out"
        assert watched.complaints == []


@pytest.mark.slow
def test_group_is_skipped_and_split(codes, chromium, tmp_path):
    with reviewing(chromium, codes, tmp_path / "labels.csv") as watched:
        page = watched.page
        size = int(re.search(r"(\d+) photos", group(page))[1])
        page.keyboard.press("/")
        until(page, "document.getElementById('group-title').textContent.startsWith('Group 1a')")
        half = int(re.search(r"(\d+) photo", group(page))[1])
        page.keyboard.press(".")
        assert group(page).startswith("Group 1b") and half + int(re.search(r"(\d+) photo", group(page))[1]) == size
        page.keyboard.press(".")
        assert group(page).startswith("Group 2")
        page.keyboard.press(",")
        assert group(page).startswith("Group 1b") and watched.complaints == []


def test_fifth_decision_is_on_a_random_photo(codes, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with reviewing(chromium, codes, labels) as watched:
        page = watched.page
        assert "label random photos" in page.inner_text("#progress")
        for _ in range(4):
            assert group(page).startswith("Group")
            page.keyboard.press(".")
        assert group(page) == "Random photo"
        until(page, "document.querySelector('.photo.current .mark').textContent === 'random'")
        label_selected(page, "any")
        until_saved(page, 1)
        assert [*read_labels(str(labels)).chosen.values()] == ["random"]
        page.click("#more-random")
        until(page, "document.getElementById('count').textContent.includes('random photos')")
        page.keyboard.press("1")
        until_saved(page, 2)
        assert [*read_labels(str(labels)).chosen.values()] == ["random", "random"]
        page.click("#back")
        until(page, "document.getElementById('group-title').textContent.startsWith('Group')")
        assert watched.complaints == []


@pytest.mark.slow
def test_groups_are_accessible_also_on_a_phone(codes, chromium, tmp_path):
    with serving(codes, tmp_path / "labels.csv") as url:
        for watched in in_each_look(chromium, url):
            watched.page.dblclick(".photo.current")
            until(watched.page, "document.getElementById('large-facts').textContent")
