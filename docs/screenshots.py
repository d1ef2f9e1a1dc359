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
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

import flowers_batch as fb

if TYPE_CHECKING:
    from playwright.sync_api import Page

DOCS = Path(__file__).parent
SIZES = {"wide": {"width": 1200, "height": 860}, "phone": {"width": 390, "height": 860}}
KEYS = "1234512"  # of the classes that photos are labelled with


def show_report(page: Page, address: str) -> None:
    """Open the report at its confusion matrix, with the photos of the largest wrong cell."""
    page.goto(address)
    largest = max(page.query_selector_all(".matrix td:not(.correct) a"), key=lambda link: int(link.inner_text()))
    page.goto(f"{address}{largest.get_attribute('href')}")
    page.evaluate("document.getElementById('mistakes').scrollIntoView()")


def show_review(page: Page, address: str) -> None:
    """Open the review with some photos labelled and some selected, and leave no label in its file."""
    page.goto(address)
    page.wait_for_selector(".photo img[src]")
    for key in (*KEYS, "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    page.evaluate("document.getElementById('grid').scrollTop = 0")
    page.wait_for_timeout(1500)
    page.keyboard.press("Shift+ArrowLeft")
    for _ in KEYS:
        page.evaluate("fetch('api/undo', { method: 'POST', body: '{}' })")


def encode_config() -> fb.EncodeConfig:
    """Return the settings for the weights that the environment names."""
    if convolutions := os.environ.get("FLOWERS_BATCH_CONV_WEIGHTS"):
        return fb.EncodeConfig(weights=convolutions, layer="pool5", pool="avg")
    return fb.EncodeConfig(weights=os.environ.get("FLOWERS_BATCH_WEIGHTS", "random:0"))


def main() -> None:
    """Predict labels of the photos, and take screenshots."""
    photos = os.environ.get("FLOWERS_BATCH_PHOTOS")
    if not photos:
        raise SystemExit("FLOWERS_BATCH_PHOTOS must name a folder of photos, one folder per class.")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        base = Path(scratch)
        with fb.console_reporter("encode") as reporter:
            fb.encode(photos, base / "codes", encode_config(), reporter=reporter)
        fb.train(base / "codes", base / "model", fb.TrainConfig(("folder",)))
        fb.predict(base / "codes", base / "flowers", base / "model")
        report = f"file://{fb.report(base / 'flowers')}"
        command = [sys.executable, "-m", "flowers_batch", "review", str(base / "flowers"), "--no-open"]
        command += ["--labels", str(base / "labels.csv")]
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            pages = {"report": (report, show_report), "review": (server.stdout.readline().strip(), show_review)}
            for name, (address, prepare) in pages.items():
                for size, viewport in SIZES.items():
                    for scheme in ("light", "dark"):
                        page = chromium.new_page(viewport=viewport, color_scheme=scheme)
                        prepare(page, address)
                        file = DOCS / f"{name}-{size}-{scheme}.jpg"
                        page.screenshot(path=file, type="jpeg", quality=75)
                        print(file)
                        page.close()
            server.terminate()
        chromium.close()


if __name__ == "__main__":
    main()
