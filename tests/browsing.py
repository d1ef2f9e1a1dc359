"""Pages in a browser, and the server of a review."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

from axe_playwright_python.sync_playwright import Axe

from flowers_batch.pages.review.review import Review
from flowers_batch.pages.review.server import ReviewServer, listen
from flowers_batch.progress import NULL_REPORTER


@dataclass
class Watched:
    """A page, with its complaints (messages, errors and dialogs) and requests."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(chromium, url: str, **options) -> Iterator[Watched]:
    """Open a page in a browser."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, **options)
    watched = Watched(context.new_page())
    page = watched.page
    page.on("console", lambda message: watched.complaints.append(message.text))
    page.on("pageerror", lambda error: watched.complaints.append(str(error)))
    page.on("dialog", lambda dialog: watched.complaints.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda request: watched.requests.append(request.url))
    page.set_default_timeout(20_000)
    page.goto(url)
    if "?token=" in url:
        page.wait_for_url(lambda address: "?token=" not in address)
    try:
        yield watched
    finally:
        context.close()


def in_each_look(chromium, url: str) -> Iterator[Watched]:
    """Yield a review's page, with photos in sight, in light and dark, wide and on a phone.

    Each is checked before it is yielded and afterwards: it is accessible, fits the width, and loads nothing from
    others.
    """
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 360)):
        with opened(chromium, url, color_scheme=scheme) as watched:
            page = watched.page
            page.set_viewport_size({"width": width, "height": 740})
            page.wait_for_selector(".photo img[src]")
            assert accessibility_faults(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            yield watched
            assert accessibility_faults(page) == []
            assert all(address.startswith((url.partition("?")[0], "data:")) for address in watched.requests)


def accessibility_faults(page) -> list[str]:
    """Return the serious faults that axe finds."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found if each["impact"] in ("serious", "critical")
    ]


@contextmanager
def serving(folder: Path, labels: Path) -> Iterator[str]:
    """Serve a review in a thread of this process; yields the page's address."""
    with closing(Review(folder, labels)) as review, listen(0) as listener:
        review.outside_links.start(NULL_REPORTER)
        review.start()
        server = ReviewServer(review, listener)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server.url
        finally:
            server.stop()
            thread.join(20)
            assert not thread.is_alive()


def enter(url: str) -> tuple[str, str]:
    """Open the address with the token as a browser does; returns the path of the page and the cookie."""
    with urlopen(url) as answer:
        page = re.search(r'url=(/[^"]+/)"', answer.read().decode())
        assert page
        return page[1], answer.headers["Set-Cookie"].partition(";")[0]


@contextmanager
def command(folder: Path, labels: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `flowers-batch review`; yields the page's address and the process."""
    arguments = ["review", str(folder), "--labels", str(labels), "--no-open"]
    with subprocess.Popen(
        [sys.executable, "-m", "flowers_batch", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


@contextmanager
def reviewing(chromium, predictions: Path, labels: Path) -> Iterator[Watched]:
    """Serve a review in this process, and open its page in a browser."""
    with serving(predictions, labels) as url, opened(chromium, url) as watched:
        watched.page.wait_for_selector(".photo img[src]")
        yield watched


def until(page, expression: str) -> None:
    """Wait until an expression is true; the page's policy forbids Playwright's own way."""
    deadline = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


def until_saved(page, labels: int | None = None) -> None:
    """Wait until the page says that the file has a number of labels, or that all changes are saved."""
    number = "[0-9]" if labels is None else f"{labels} "
    until(page, f"/^{number}/.test(document.getElementById('saved').textContent)")


def label_selected(page, name: str) -> None:
    """Label the selected photos by the key of a class, or by typing the name of a new one."""
    names = page.evaluate("[...document.querySelectorAll('#classes button span')].map((each) => each.textContent)")
    if name in names:
        page.keyboard.press("123456789"[names.index(name)])
    else:
        page.keyboard.press("n")
        page.keyboard.type(name)
        page.keyboard.press("Enter")


def photo_count(page) -> str:
    """Return the page's count of photos."""
    return page.inner_text("#count")
