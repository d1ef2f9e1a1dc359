"""Takes the pictures of both pages that the README shows: `make screenshots`.

FLOWERS_BATCH_PHOTOS names the photos, a class a folder. Weights are random unless FLOWERS_BATCH_WEIGHTS names others,
and the pages say so.
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
LABELLED = "1234512"


def report_at(page: Page, address: str) -> None:
    """The report where a cell of its matrix is open."""
    page.goto(address)
    largest = max(page.query_selector_all(".matrix td:not(.right) a"), key=lambda link: int(link.inner_text()))
    page.goto(f"{address}{largest.get_attribute('href')}")
    page.evaluate("document.getElementById('mistakes').scrollIntoView()")


def review_at(page: Page, address: str) -> None:
    """The review when some photos have labels and some are selected."""
    page.goto(address)
    page.wait_for_selector(".photo img[src]")
    for key in (*LABELLED, "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    page.evaluate("document.getElementById('grid').scrollTop = 0")
    page.wait_for_timeout(1500)
    page.keyboard.press("Shift+ArrowLeft")
    for _ in LABELLED:
        page.evaluate("fetch('api/undo', { method: 'POST', body: '{}' })")


def main() -> None:
    """Labels the photos, and takes pictures."""
    photos = os.environ.get("FLOWERS_BATCH_PHOTOS")
    if not photos:
        raise SystemExit("FLOWERS_BATCH_PHOTOS must name a folder of photos, a class a folder.")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        base = Path(scratch)
        weights = os.environ.get("FLOWERS_BATCH_WEIGHTS", "random:0")
        with fb.console_reporter("encode") as reporter:
            fb.encode(photos, base / "codes", fb.EncodeConfig(weights=weights), reporter=reporter)
        fb.train(base / "codes", base / "model")
        fb.predict(base / "codes", base / "flowers", base / "model")
        report = f"file://{fb.report(base / 'flowers')}"
        command = [sys.executable, "-m", "flowers_batch", "review", str(base / "flowers"), "--no-open"]
        command += ["--labels", str(base / "labels.csv")]
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            pages = {"report": (report, report_at), "review": (server.stdout.readline().strip(), review_at)}
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
