"""Groups of near-duplicates, and the photo of each to keep."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from codes_folder import labels, write_codes
from commands import run
from run_folders import write_run

import flowers_batch as fb
from flowers_batch.dataset.job import read_job
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.search import duplicates as module
from flowers_batch.search.duplicates import near_duplicates
from flowers_batch.sources.images import Image
from flowers_batch.storage.opening import open_folder


def write_archive(
    tmp_path: Path,
    monkeypatch,
    modified: dict[int, int] | None = None,
    paths: dict[int, str] | None = None,
    **columns: dict[int, int],
) -> Path:
    """Write codes of 30 photos and two copies of each of the first three; rows 30 to 35.

    Args:
        tmp_path: The folder is `codes` in it.
        monkeypatch: Has the photos listed with times.
        modified: The year in which a row's file was changed; 2020 by default.
        paths: Other paths of rows.
        columns: Values of `width`, `height` and `bytes` by row; 100 by default.
    """
    whole = write_codes(tmp_path / "whole", labels(daisy=10, rose=10, tulip=10), copies=3)
    table, job = pq.read_table(whole / "codes/shard-000000.parquet"), read_job(open_folder(whole))
    for name in ("width", "height", "bytes"):
        values = [columns.get(name, {}).get(row, 100) for row in range(len(table))]
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    names = [(paths or {}).get(row, name) for row, name in enumerate(table["path"].to_pylist())]
    table = table.set_column(0, table.schema.field(0), pa.array(names, pa.string()))
    years = dict(zip(table["path"].to_pylist(), range(len(table)), strict=True))
    monkeypatch.setattr(
        "run_folders.Image",
        lambda path: Image(path, mtime=datetime((modified or {}).get(years[path], 2020), 1, 1, tzinfo=UTC)),
    )
    write_run(open_folder(tmp_path / "codes"), job, [table[:20].to_batches(), table[20:].to_batches(7)])
    return tmp_path / "codes"


def groups_in(folder: Path) -> list[list[int]]:
    return near_duplicates(open_run(folder, CODES))


def test_copies_by_bytes_or_hash_and_code_are_a_group(tmp_path, monkeypatch):
    assert groups_in(write_archive(tmp_path, monkeypatch)) == [[0, 30, 33], [1, 31, 34], [2, 32, 35]]


@pytest.mark.parametrize(
    "known",
    [
        {"width": {33: 101}},
        {"height": {33: 101}, "bytes": {0: 200}},
        {"bytes": {33: 101}, "modified": {0: 1999}},
        {"modified": {33: 1999}},
    ],
)
def test_photo_to_keep_has_most_pixels_then_bytes_then_age(tmp_path, monkeypatch, known):
    assert groups_in(write_archive(tmp_path, monkeypatch, **known))[0] == [33, 0, 30]


def test_pair_alone_is_no_duplicate(tmp_path, monkeypatch):
    folder = write_archive(tmp_path, monkeypatch, paths={30: "daisy/000.CR2", 33: "daisy/000.dng"})
    assert groups_in(folder) == [[1, 31, 34], [2, 32, 35]]


def test_two_jpegs_of_one_name_are_two_photos(tmp_path, monkeypatch):
    folder = write_archive(tmp_path, monkeypatch, paths={30: "daisy/000.jpeg", 33: "daisy/033.CR2"})
    assert groups_in(folder) == [[0, 30, 33], [1, 31, 34], [2, 32, 35]]


def test_pair_is_one_photo_the_better_file_first(tmp_path, monkeypatch, capsys):
    folder = write_archive(tmp_path, monkeypatch, paths={30: "daisy/000.CR2"}, width={30: 200})
    assert sorted(groups_in(folder)) == [[1, 31, 34], [2, 32, 35], [30, 33]]
    code, printed, _ = run(capsys, "duplicates", str(folder), "--csv", str(tmp_path / "copies.csv"))
    assert code == 0 and "keep daisy/000.CR2 with daisy/000.jpg  200x100" in printed
    with open(tmp_path / "copies.csv", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith("daisy")]
    kept = [(row["path"], row["keep"]) for row in rows if row["group"] == rows[-1]["group"]]
    assert kept == [("daisy/000.CR2", "yes"), ("daisy/000.jpg", "yes"), ("daisy/033.jpg", "no")]


def test_near_duplicates_of_either_file_are_those_of_the_pair(tmp_path, monkeypatch):
    """The hash of the RAW file, which is the better one, is far from that of the JPEG and its copies."""
    folder = write_archive(tmp_path, monkeypatch, paths={5: "daisy/000.CR2"}, width={5: 200})
    points = module._points

    def alike(run: Run, rows: np.ndarray, reporter: fb.Reporter) -> np.ndarray:
        found = points(run, rows, reporter)
        found[rows == 5] = found[rows == 0]
        return found

    monkeypatch.setattr(module, "_points", alike)
    assert sorted(groups_in(folder)) == [[1, 31, 34], [2, 32, 35], [5, 30, 33]]


def test_photos_whose_hashes_alone_are_alike_are_no_copies(tmp_path, monkeypatch):
    folder = write_archive(tmp_path, monkeypatch)
    points = module._points

    def moved(run: Run, rows: np.ndarray, reporter: fb.Reporter) -> np.ndarray:
        found = points(run, rows, reporter)
        found[rows == 33] += 10
        return found

    monkeypatch.setattr(module, "_points", moved)
    assert sorted(groups_in(folder)) == [[0, 30], [1, 31, 34], [2, 32, 35]]


def test_chain_of_photos_is_divided_around_the_best_ones():
    chain = np.arange(6, dtype=np.float32)[:, None] / 2  # each is near to its neighbours alone
    assert [group.tolist() for group in module._around_the_best(np.arange(6), chain)] == [[0, 1], [2, 3], [4, 5]]
    assert [group.tolist() for group in module._around_the_best(np.array([1, 0, 2, 5]), chain)] == [[1, 0, 2]]


def test_largest_groups_come_first(tmp_path, monkeypatch):
    folder = write_archive(tmp_path, monkeypatch)
    linked = module._linked_photos

    def fewer(*arguments) -> tuple[np.ndarray, np.ndarray]:
        rows, groups = linked(*arguments)
        return rows[rows != 30], groups[rows != 30]

    monkeypatch.setattr(module, "_linked_photos", fewer)
    assert groups_in(folder) == [[1, 31, 34], [2, 32, 35], [0, 33]]


@pytest.mark.parametrize("photos", [0, 1, 5])
def test_archive_without_copies_has_no_groups(tmp_path, photos):
    folder = write_codes(tmp_path / "codes", labels(daisy=5), failed=5 - photos)
    assert near_duplicates(open_run(folder, CODES)) == [] == fb.duplicates(folder)


def test_duplicates_are_described_and_written_as_csv(tmp_path, monkeypatch, capsys):
    folder = write_archive(tmp_path, monkeypatch, width={33: 3000}, modified={0: 1970})
    code, printed, _ = run(capsys, "duplicates", str(folder), "--csv", str(tmp_path / "copies.csv"), "--json")
    groups = json.loads(printed)["duplicates"]
    assert code == 0 and len(groups) == 3 and groups == fb.duplicates(folder)
    best = {
        "path": "daisy/033.jpg",
        "width": 3000,
        "height": 100,
        "bytes": 100,
        "modified": "2020-01-01T00:00:00+00:00",
        "pair": [],
    }
    assert groups[0]["keep"] == best
    assert [photo["path"] for photo in groups[0]["others"]] == ["daisy/000.jpg", "daisy/030.jpg"]
    assert groups[0]["others"][0]["modified"] is None
    with open(tmp_path / "copies.csv", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["keep"] for row in rows] == ["yes", "no", "no"] * 3 and rows[0]["path"] == "daisy/033.jpg"
    assert {row["group"] for row in rows} == {"1", "2", "3"}


def test_duplicates_are_printed_the_one_to_keep_first(tmp_path, monkeypatch, capsys):
    code, printed, _ = run(capsys, "duplicates", str(write_archive(tmp_path, monkeypatch)))
    lines = printed.splitlines()
    assert code == 0 and lines[0] == "keep daisy/000.jpg  100x100, 100 bytes"
    assert lines[-1] == "3 groups of near-duplicates, with 6 photos besides those to keep"


@pytest.mark.parametrize(
    ("copies", "sentence"),
    [(0, "no near-duplicates were found"), (1, "1 group of near-duplicates, with 2 photos besides the one to keep")],
)
def test_few_near_duplicates_are_counted_in_words(tmp_path, capsys, copies, sentence):
    folder = write_codes(tmp_path / "codes", labels(daisy=20), copies=copies)
    assert run(capsys, "duplicates", str(folder))[1].splitlines()[-1] == sentence
