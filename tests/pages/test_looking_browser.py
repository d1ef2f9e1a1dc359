"""The review in a browser: photos shown large, similar photos, filters, and views that follow the classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
from archive_runs import predict_drawn
from browsing import label_selected, opened, photo_count, reviewing, serving, until, until_saved

from flowers_batch.classifier.labels_file import read_labels

pytestmark = pytest.mark.usefixtures("in_threads")
SELECTED = "[...document.querySelectorAll('.photo[aria-selected=true]')].map((photo) => photo.title)"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Folders `codes`, `model` and `predictions` of 91 photos."""
    return predict_drawn(tmp_path_factory.mktemp("pages"))


def open_view(page, name: str) -> None:
    """Open a view and have its photos take the keys."""
    page.select_option("#view", name)
    until(page, "/^[0-9]+ (photo|group)/.test(document.getElementById('count').textContent)")
    page.focus("#grid")


def test_large_photo_is_labelled_with_keys(base, chromium, tmp_path):
    labels = tmp_path / "labels.csv"
    with reviewing(chromium, base / "predictions", labels) as watched:
        page = watched.page
        first, second = (page.get_attribute(f"#photo-{position}", "title") for position in (0, 1))
        page.dblclick("#photo-0")
        until(page, "document.getElementById('large-image').src.startsWith('data:image/webp')")
        assert page.text_content("#large-path") == first
        until(page, "document.querySelectorAll('#large-top button').length === 3")
        assert "pixels" in page.inner_text("#large-facts")
        page.keyboard.press("2")
        until_saved(page, 1)
        assert page.text_content("#large-path") == second
        label_selected(page, "a new class")
        until_saved(page, 2)
        page.keyboard.press("ArrowLeft")
        until(page, "document.getElementById('large-label').textContent === 'a new class'")
        page.keyboard.press("u")
        until_saved(page, 1)
        page.keyboard.press("Escape")
        until(page, "document.activeElement.id === 'grid' && document.querySelector('#labelling #classes')")
        assert [*read_labels(str(labels)).labels] == [first] and watched.complaints == []


@pytest.mark.slow
def test_large_photo_that_failed_says_why(base, chromium, tmp_path):
    with reviewing(chromium, base / "predictions", tmp_path / "labels.csv") as watched:
        page = watched.page
        open_view(page, "failed")
        page.wait_for_selector("#photo-0 .missing")
        page.keyboard.press("Enter")
        page.wait_for_selector("#large-problem:not([hidden])")
        assert page.inner_text("#large-problem") and not page.is_visible("#large-image")


@pytest.mark.slow
def test_similar_photos_are_labelled_as_searched(base, chromium, tmp_path):
    """The way back leads to the view, the place and the selection that were left."""
    labels = tmp_path / "labels.csv"
    with reviewing(chromium, base / "predictions", labels) as watched:
        page = watched.page
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        selected = page.evaluate(SELECTED)
        page.keyboard.press("s")
        until(page, "/similar to 2 photos/.test(document.getElementById('count').textContent)")
        until(page, "document.querySelector('#photo-0 small')?.textContent.startsWith('similarity ')")
        assert page.get_attribute("#photo-0", "title") not in selected and page.is_hidden("#folder")
        page.keyboard.press("1")
        until_saved(page, 1)
        assert [*read_labels(str(labels)).chosen.values()] == ["search"]
        page.keyboard.press("Escape")
        assert photo_count(page) == "91 photos" and page.is_hidden("#back")
        until(page, "document.querySelectorAll('.photo[aria-selected=true]').length === 2")
        assert page.evaluate(SELECTED) == selected and watched.complaints == []


@pytest.mark.slow
def test_filters_combine(base, chromium, tmp_path):
    with reviewing(chromium, base / "predictions", tmp_path / "labels.csv") as watched:
        page = watched.page
        open_view(page, "all")
        page.select_option("#folder", "green")
        until(page, "document.getElementById('count').textContent === '31 photos'")
        page.fill("#search", "COPY")
        until(page, "document.getElementById('count').textContent === '1 photo'")
        until(page, "document.querySelector('.photo')?.title === 'green/copy.png'")
        page.click("#clear")
        until(page, "document.getElementById('count').textContent === '92 photos'")
        page.fill("#high", "1")
        until(page, "document.getElementById('count').textContent === '0 photos'")
        assert page.is_visible("#empty") and watched.complaints == []


@pytest.mark.slow
def test_size_of_thumbnails_survives_a_reload(base, chromium, tmp_path):
    with reviewing(chromium, base / "predictions", tmp_path / "labels.csv") as watched:
        page = watched.page
        before = page.evaluate("document.querySelector('.photo').clientWidth")
        page.focus("#size")
        page.keyboard.press("End")
        until(page, f"document.querySelector('.photo').clientWidth > {before}")
        open_view(page, "all")
        wide = page.evaluate("document.querySelector('.photo').clientWidth")
        page.reload()
        page.wait_for_selector(".photo img[src]")
        assert page.evaluate("document.querySelector('.photo').clientWidth") == wide
        assert page.input_value("#view") == "all"


def test_new_classifier_leaves_place_and_selection(base, chromium, tmp_path):
    """Photos in sight stay where and what they are, those below follow the new order."""
    fits = {"number": 1, "labels": 30}
    order, random = list(range(91)), []

    def fitted(route) -> None:
        state = route.fetch().json()
        fit = {"running": False, "step": "", "error": "", "accuracy": None, "certain": None, "random_needed": 9}
        route.fulfill(json=state | {"fit": fit | {"wanted_precision": 0.95} | fits})

    with serving(base / "predictions", tmp_path / "labels.csv") as url, opened(chromium, "about:blank") as watched:
        page = watched.page
        page.route("**/api/state", fitted)
        page.route(
            "**/api/view?name=uncertain*",
            lambda route: route.fulfill(json={"rows": order, "total": len(order), "random": random}),
        )
        page.goto(url)
        page.wait_for_selector(".photo img[src]")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        page.evaluate("document.getElementById('grid').scrollTop = 60")
        in_sight = "[...Array(12).keys()].map((position) => document.getElementById(`photo-${position}`)?.title)"
        until(page, f"{in_sight}.every(Boolean)")
        before, selected = page.evaluate(in_sight), page.evaluate(SELECTED)
        order.reverse()
        random += order  # all would be next: those that stay were not drawn at random
        fits.update(number=2, labels=40)
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # when the page asks for the state
        until(page, "document.getElementById('fit').textContent === 'fitted to 40 labels'")
        page.wait_for_timeout(500)
        assert page.evaluate(in_sight) == before
        assert page.evaluate(SELECTED) == selected and len(selected) == 2
        assert "random" not in page.inner_text("#photo-3")
        assert page.evaluate("document.getElementById('grid').scrollTop") == 60
        page.evaluate("document.getElementById('grid').scrollTop = 1e6")
        until(page, "document.getElementById('photo-90')?.title")
        assert "random" in page.inner_text("#photo-90")
        described = "fetch('api/photos', { method: 'POST', body: '{\"rows\": [90]}' }).then((answer) => answer.json())"
        assert page.get_attribute("#photo-90", "title") != page.evaluate(described)[0]["path"]
        assert watched.complaints == []
