"""Take the screenshots of both pages for the documentation: `make screenshots`.

FLOWERS_BATCH_PHOTOS names the photos, one folder per class. FLOWERS_BATCH_WEIGHTS names the weights of the network, or
FLOWERS_BATCH_CONV_WEIGHTS those of its convolutions alone. Without either they are random, and the pages say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

import flowers_batch as fb

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DOCS = Path(__file__).parent
SIZES = {"wide": {"width": 1200, "height": 860}, "phone": {"width": 390, "height": 860}}
LABELLED_GROUPS = 10  # before the pictures of the review of codes
MIN_SHOWN = 4  # photos of the groups in the pictures
KEYS = "1234512"  # of the classes that photos are labelled with in the review of predictions
DESCRIBED = "[...document.querySelectorAll('.photo[aria-selected=true]')].every((photo) => photo.title)"
LOADED = "[...document.querySelectorAll('.photo img')].every((image) => image.src)"
SELECTED = (  # ids of the tiles, and the folders of their photos
    "Object.fromEntries([...document.querySelectorAll('.photo[aria-selected=true]')]"
    ".map((photo) => [photo.id, photo.title.split('/')[0]]))"
)


def wait(page: Page, expression: str) -> None:
    """Wait until an expression is true; the page's policy forbids Playwright's own way."""
    while not page.evaluate(expression):
        page.wait_for_timeout(50)


def show_report(page: Page, address: str) -> None:
    """Open the report at its confusion matrix, with the photos of the largest wrong cell."""
    page.goto(address)
    largest = max(page.query_selector_all(".matrix td:not(.correct) a"), key=lambda link: int(link.inner_text()))
    page.goto(f"{address}{largest.get_attribute('href')}")
    page.evaluate("document.getElementById('mistakes').scrollIntoView()")


def show_review(page: Page, address: str) -> None:
    """Open the review of predictions with some photos labelled and some selected, and leave no label in its file."""
    open_review(page, address)
    for key in (*KEYS, "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    page.evaluate("document.getElementById('grid').scrollTop = 0")
    page.wait_for_timeout(1500)
    page.keyboard.press("Shift+ArrowLeft")
    for _ in KEYS:
        page.evaluate("fetch('api/undo', { method: 'POST', body: '{}' })")


def open_review(page: Page, address: str) -> None:
    """Open a review, and wait for its photos."""
    page.goto(address)
    page.wait_for_selector(".photo img[src]")
    wait(page, LOADED)


def label_groups(page: Page, address: str) -> None:
    """Label some groups as most of their photos are, by their folders, and wait for the classifier."""
    open_review(page, address)
    for _ in range(LABELLED_GROUPS):
        label_group(page)
    wait(page, "document.getElementById('saved').textContent !== 'saving…'")
    page.keyboard.press("t")
    wait(page, "document.getElementById('fit').textContent.startsWith('fitted')")


def label_group(page: Page) -> None:
    """Label the photos of the current group that are of its largest folder, by the class's key or name."""
    name = take_out_others(page)
    names = page.evaluate("[...document.querySelectorAll('#classes button span')].map((each) => each.textContent)")
    if name in names:
        page.keyboard.press(f"{names.index(name) + 1}")
        return
    page.keyboard.press("n")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    wait(page, f"[...document.querySelectorAll('#classes button span')].some((each) => each.textContent === '{name}')")


def take_out_others(page: Page) -> str:
    """Take out the photos of the current group that are not of its largest folder, and return the folder."""
    wait(page, DESCRIBED)
    photos = page.evaluate(SELECTED)
    name = max(photos.values(), key=[*photos.values()].count)
    for identity in (identity for identity, folder in photos.items() if folder != name):
        page.click(f"#{identity}")
    return name


def show_groups(page: Page, address: str) -> None:
    """Show groups of which one was labelled and the next one has a photo taken out; leave no label in the file."""
    open_review(page, address)
    while len(page.query_selector_all(".photo[aria-selected=true]")) < MIN_SHOWN:
        page.keyboard.press(".")
    label_group(page)
    wait(page, DESCRIBED)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.wait_for_timeout(1500)
    page.evaluate("document.getElementById('grid').scrollTop -= 220")
    wait(page, LOADED)
    page.evaluate("fetch('api/undo', { method: 'POST', body: '{}' })")


def show_similar(page: Page, address: str) -> None:
    """Show photos similar to one."""
    open_review(page, address)
    page.keyboard.press("Escape")
    page.dblclick(".photo.current")
    page.keyboard.press("s")
    wait(page, "document.getElementById('count').textContent.includes('similar')")
    page.keyboard.press("Shift+ArrowRight")
    wait(page, LOADED)


def show_large(page: Page, address: str) -> None:
    """Show a photo large."""
    open_review(page, address)
    page.keyboard.press("Enter")
    wait(page, "document.getElementById('large-facts').textContent && !document.querySelector('#large-image.loading')")


def encode_config() -> fb.EncodeConfig:
    """Return the settings for the weights that the environment names."""
    if convolutions := os.environ.get("FLOWERS_BATCH_CONV_WEIGHTS"):
        return fb.EncodeConfig(weights=convolutions, layer="pool5", pool="avg")
    return fb.EncodeConfig(weights=os.environ.get("FLOWERS_BATCH_WEIGHTS", "random:0"))


@contextmanager
def reviewing(folder: Path, labels: Path) -> Iterator[str]:
    """Serve a review; yields its address."""
    command = [sys.executable, "-m", "flowers_batch", "review", str(folder), "--no-open", "--labels", str(labels)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        server.terminate()


def take(
    chromium: Browser, name: str, address: str, show: Callable[[Page, str], None], sizes: Iterable[str] = SIZES
) -> None:
    """Take the pictures of a page, light and dark."""
    for size in sizes:
        for scheme in ("light", "dark"):
            page = chromium.new_page(viewport=SIZES[size], color_scheme=scheme)
            show(page, address)
            file = DOCS / f"{name}-{size}-{scheme}.jpg"
            page.screenshot(path=file, type="jpeg", quality=75)
            print(file)
            page.close()


def main() -> None:
    """Predict labels of the photos, and take screenshots."""
    photos = os.environ.get("FLOWERS_BATCH_PHOTOS")
    if not photos:
        raise SystemExit("FLOWERS_BATCH_PHOTOS must name a folder of photos, one folder per class.")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        base = Path(scratch)
        codes, predictions = base / "codes", base / "flowers"
        with fb.console_reporter("encode") as reporter:
            fb.encode(photos, codes, encode_config(), reporter=reporter)
        fb.train(codes, base / "model", fb.TrainConfig(("folder",)))
        fb.predict(codes, predictions, base / "model")
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        take(chromium, "report", f"file://{fb.report(predictions)}", show_report)
        with reviewing(predictions, base / "labels.csv") as address:
            take(chromium, "review", address, show_review, ["wide"])
        with reviewing(codes, base / "labels-of-codes.csv") as address:
            label_groups(chromium.new_page(viewport=SIZES["wide"]), address)
            take(chromium, "groups", address, show_groups)
            take(chromium, "similar", address, show_similar, ["wide"])
            take(chromium, "large", address, show_large)
        chromium.close()


if __name__ == "__main__":
    main()
