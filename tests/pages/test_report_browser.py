"""The report in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from archive_runs import predict_drawn
from browsing import accessibility_faults, opened

import flowers_batch as fb

pytestmark = pytest.mark.usefixtures("in_threads")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Folders `codes`, `model` and `predictions` of 91 photos."""
    return predict_drawn(tmp_path_factory.mktemp("pages"))


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["predictions", "model", "codes"])
def test_report_is_accessible_and_requests_nothing(base, chromium, tmp_path, folder):
    page = fb.report(base / folder, tmp_path / "report.html")
    for scheme in ("light", "dark"):
        with opened(chromium, f"file://{page}", color_scheme=scheme) as watched:
            watched.page.wait_for_load_state("networkidle")
            for summary in watched.page.query_selector_all("summary"):
                if not summary.evaluate("element => element.parentElement.open"):
                    summary.click()
            assert accessibility_faults(watched.page) == []
            assert watched.complaints == []
            assert [url for url in watched.requests if not url.startswith(("file://", "data:image/webp"))] == []
            broken = "[...document.images].filter(image => !image.naturalWidth).length"
            assert watched.page.evaluate(broken) == 0


def test_matrix_cell_opens_its_photos_by_keyboard(base, chromium, tmp_path):
    page = fb.report(base / "model", tmp_path / "report.html")
    rows = pq.read_table(base / "model" / "split.parquet").to_pylist()
    accuracy_of = json.loads((base / "model" / "metrics.json").read_text())["accuracy_of"]
    split = "test" if accuracy_of == "test" else "train"  # those of cross-validation
    with opened(chromium, f"file://{page}") as watched:
        links = watched.page.query_selector_all(".matrix a")
        assert links
        for link in links:
            count, label = link.inner_text(), link.get_attribute("aria-label").split(" of ", 1)[1]
            true, _, predicted = re.sub(" predicted correctly$", "", label).partition(" predicted as ")
            link.focus()
            watched.page.keyboard.press("Enter")  # by keyboard alone
            shown = [cell for cell in watched.page.query_selector_all(".cell") if cell.is_visible()]
            assert len(shown) == 1 and shown[0].evaluate("element => element === document.activeElement")
            here = [(row["label"], row["prediction"]) == (true, predicted or true) for row in rows]
            behind = [row["path"] for row, fits in zip(rows, here, strict=True) if fits and row["split"] == split]
            assert len(behind) == int(count)
            names = [item.inner_text() for item in shown[0].query_selector_all("li span")]
            assert set(names) <= set(behind) and len(names) == min(6, len(behind))


def test_report_fits_a_phone(base, chromium, tmp_path):
    page = fb.report(base / "predictions", tmp_path / "report.html")
    with opened(chromium, f"file://{page}") as watched:
        watched.page.set_viewport_size({"width": 360, "height": 740})
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= 360
