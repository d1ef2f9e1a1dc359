"""Measure the review page over 100,000 photos: time to open, scrolling, and time until a key press is on disk."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import review_codes
from common import Claim, find_photos, parse_arguments, report, stopwatch, write_summary
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

PREDICTIONS = 100_000
SHARD = 4096
PRESSES = 40
# Scrolls for four seconds. Returns the median and the 95th percentile of the milliseconds between two frames, and the
# number of elements in the page.
SCROLL = """async () => {
  const grid = document.getElementById("grid"), gaps = [];
  let before = performance.now();
  const until = before + 4000;
  while (before < until) {
    grid.scrollTop += 90;
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - before);
    before = now;
  }
  gaps.sort((a, b) => a - b);
  const at = (share) => gaps[Math.floor(gaps.length * share)];
  return [at(0.5), at(0.95), document.querySelectorAll("*").length];
}"""
LOADED = """() => {
  const images = [...document.querySelectorAll(".photo img")];
  return images.length > 0 && images.every((image) => image.complete && image.naturalWidth);
}"""


def write(folder: Path, sources: list[Path], count: int) -> Path:
    """Write links to a few photos, and predictions of them as `predict` leaves them."""
    from flowers_batch.dataset import job, shard_file
    from flowers_batch.dataset import schema as schema_module
    from flowers_batch.dataset.growth import write_manifest
    from flowers_batch.fingerprint import Fingerprint
    from flowers_batch.sources.opening import open_source
    from flowers_batch.storage.opening import open_folder

    images = folder / "photos"
    images.mkdir()
    copies = [Path(shutil.copy(source, folder / f"{number}.jpg")) for number, source in enumerate(sources)]
    for number in range(count):
        # Of several files: a file system limits the number of links to one.
        os.link(copies[number % len(copies)], images / f"{number:06d}.jpg")
    target = open_folder(folder / "predictions")
    random = np.random.default_rng(0)
    schema = schema_module.predictions_schema()
    fingerprint = Fingerprint("null", "pixels", "null", "float32", "float16")
    job.write_job(target, job.Job(schema_module.PREDICTIONS, str(images), fingerprint, "null"))
    shards = write_manifest(target, open_source(str(images)), SHARD, "run").shards
    for start, shard in zip(range(0, count, SHARD), shards, strict=True):
        numbers = range(start, min(start + SHARD, count))
        confidences = random.random(len(numbers)).astype(np.float32)
        names = [f"class {number}" for number in random.integers(0, 9, len(numbers))]
        columns = {name: [None] * len(numbers) for name in schema.names} | {
            "path": [f"{number:06d}.jpg" for number in numbers],
            "sha256": [random.bytes(32) for _ in numbers],
            "phash": list(numbers),
            "status": ["ok"] * len(numbers),
            "prediction": names,
            "probability": confidences,
            "top_labels": [[name] for name in names],
            "top_probabilities": [[value] for value in confidences],
            "is_unknown": [False] * len(numbers),
        }
        rows = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
        footer = shard_file.Footer(fingerprint.digest, shard.number, shard.inputs_digest, 0, 0)
        shard_file.write_shard(target, schema_module.PREDICTIONS, schema, rows.to_batches(), footer)
    write_summary(target, len(shards), count)
    return folder / "predictions"


def wait(page: Page, expression: str) -> float:
    """Return the seconds until an expression is true."""
    with stopwatch() as seconds:
        while not page.evaluate(expression):
            page.wait_for_timeout(5)
        return seconds()


@contextmanager
def reviewing(folder: Path, labels: Path) -> Iterator[str]:
    """Run the command; yields the page's address."""
    command = [sys.executable, "-m", "flowers_batch", "review", str(folder), "--no-open", "--labels", str(labels)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def open_page(chromium: Browser, address: str) -> tuple[Page, float]:
    """Open the page; return it and the seconds until its first photos are seen."""
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    with stopwatch() as seconds:
        page.goto(address)
        page.wait_for_selector(".photo")  # the address leads on to the page
        wait(page, LOADED)
        return page, seconds()


def measure_predictions(chromium: Browser, predictions: Path, labels: Path) -> tuple[list[Claim], dict[str, str]]:
    """Measure the grid and labels."""
    with stopwatch() as since_start, reviewing(predictions, labels) as address:
        served = since_start()
        page, first_photos = open_page(chromium, address)
        median, slow, elements = page.evaluate(SCROLL)
        page.evaluate("() => { const grid = document.getElementById('grid'); grid.scrollTop = grid.scrollHeight / 2; }")
        page.wait_for_timeout(50)
        jumped = wait(page, LOADED)
        page.evaluate("document.getElementById('grid').scrollTop = 0")
        page.keyboard.press("Home")
        page.wait_for_timeout(500)
        presses = []
        for number in range(PRESSES):
            page.keyboard.press("123"[number % 3])
            presses.append(wait(page, f"document.getElementById('saved').textContent.startsWith('{number + 1} ')"))
    claims = [
        Claim("seconds until the page serves", served, 10, at_least=False),
        Claim("seconds until its first photos are seen", first_photos, 5, at_least=False),
        Claim("milliseconds between two frames while it scrolls, 95th percentile", slow, 50, at_least=False),
        Claim("elements in the page, however many photos", elements, 1000, at_least=False),
        Claim("seconds until photos in the middle are seen", jumped, 2, at_least=False),
        Claim("seconds until a key press is on disk, median", statistics.median(presses), 0.1, at_least=False),
    ]
    return claims, {"milliseconds between two frames, median": f"{median:.1f}"}


def measure_codes(chromium: Browser, codes: Path, labels: Path) -> tuple[list[Claim], dict[str, str]]:
    """Measure the start on groups, with and without those of an earlier start, and scrolling through them."""
    seconds = []
    for _ in range(2):
        with stopwatch() as since_start, reviewing(codes, labels) as address:
            page, _ = open_page(chromium, address)
            seconds.append(since_start())
            median, slow, elements = page.evaluate(SCROLL)
    claims = [
        Claim("seconds from the start until photos of the first groups are seen", seconds[0], 5, at_least=False),
        Claim("seconds until they are seen at a later start", seconds[1], 2, at_least=False),
        Claim("milliseconds between two frames in groups, 95th percentile", slow, 50, at_least=False),
        Claim("elements in the page of groups", elements, 1000, at_least=False),
    ]
    return claims, {"milliseconds between two frames in groups, median": f"{median:.1f}"}


def main() -> None:
    """Measure, and print the claims."""
    options = parse_arguments(__doc__, predictions={"type": int, "default": PREDICTIONS})
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        base = Path(scratch)
        predictions = write(base, find_photos(options.photos, base), options.predictions)
        codes = review_codes.write(base, options.predictions, base / "photos")
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        claims, figures = measure_predictions(chromium, predictions, base / "labels.csv")
        more_claims, more_figures = measure_codes(chromium, codes, base / "labels-of-codes.csv")
        chromium.close()
    report("review", [*claims, *more_claims], {"photos": options.predictions} | figures | more_figures)


if __name__ == "__main__":
    main()
