"""The page's address is shown to no other user when a browser opens it, and leaves the browser's history."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from browsing import serving, until
from dataset_rows import finished, labelled, predictions_batch

from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.pages.review.browser import opened_in_browser

URL = "http://127.0.0.1:1/?token=secret"


class Messages:
    """A reporter that keeps messages."""

    def __init__(self):
        self.received = []

    def message(self, sentence: str) -> None:
        self.received.append(sentence)

    def update(self, progress) -> None:
        raise AssertionError


@pytest.fixture
def browser(monkeypatch):
    """What a browser is started with; it does not open the page."""
    started = []
    monkeypatch.setattr("webbrowser.open", lambda address: started.append(address) or True)
    return started


def wait_for(values: list) -> None:
    deadline = time.monotonic() + 5
    while not values:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_browser_gets_a_private_file_instead_of_the_token(browser):
    before = os.umask(0)
    try:
        with opened_in_browser(URL, threading.Event(), Messages()):
            wait_for(browser)
            (address,) = browser
            file = Path(url2pathname(urlsplit(address).path))
            assert address.startswith("file:///") and "secret" not in address
            assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
            assert f'content="0; url={URL}"' in file.read_text()
    finally:
        os.umask(before)
    assert not file.parent.exists()


def test_browser_that_does_not_open_the_page_is_reported(browser, monkeypatch):
    """As one that cannot read the file: in a snap, in another container, or on another machine."""
    monkeypatch.setattr("flowers_batch.pages.review.browser._SECONDS", 0.05)
    messages, entered = Messages(), threading.Event()
    with opened_in_browser(URL, entered, messages):
        wait_for(messages.received)
    assert messages.received == ["No browser has opened the page: open the address above in one."]
    monkeypatch.setattr("webbrowser.open", lambda _: entered.set() or True)
    with opened_in_browser(URL, entered, messages):
        time.sleep(0.2)
    assert len(messages.received) == 1


def test_review_is_served_although_no_file_can_be_made(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    messages = Messages()
    with opened_in_browser(URL, threading.Event(), messages):
        (sentence,) = messages.received
        assert "no file can be made for it (No such file or directory): open the address above" in sentence


def test_token_leaves_address_and_history_and_the_page_works(chromium, tmp_path, browser):
    rows = [labelled(f"{number}.jpg", "rose", 0.5) for number in range(2)]
    finished(tmp_path / "predictions", PREDICTIONS, [predictions_batch(rows)])
    context = chromium.new_context()
    with (
        serving(tmp_path / "predictions", tmp_path / "labels.csv") as url,
        opened_in_browser(url, threading.Event(), Messages()),
    ):
        wait_for(browser)
        page = context.new_page()
        page.goto(browser[0])
        page.wait_for_selector("#photo-1[title]")
        origin, _, token = url.partition("/?token=")
        assert page.url.startswith(f"{origin}/") and token not in page.url and len(urlsplit(page.url).path) > 32
        assert page.evaluate("history.length") <= 2, "about:blank and the page"
        assert page.evaluate("document.cookie") == page.evaluate("document.referrer") == ""
        (cookie,) = context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["expires"]) == (True, "Strict", -1)
        assert token not in str(cookie)
        page.reload()
        page.wait_for_selector("#photo-1[title]")
        page.keyboard.press("1")
        until(page, "document.getElementById('saved').textContent.startsWith('1 ')")
        stranger = chromium.new_context()
        assert stranger.new_page().goto(page.url).status == 403
        stranger.close()
        assert context.new_page().goto(f"{origin}/").status == 403, "the cookie is for the page's path only"
    context.close()
