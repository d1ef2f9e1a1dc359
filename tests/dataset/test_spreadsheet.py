"""CSV files that spreadsheets open safely."""

from __future__ import annotations

import csv
from pathlib import Path

from dataset_rows import IMAGE_FIELDS, finished, image_row, labelled, predictions_batch

from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import PREDICTIONS, predictions_schema
from flowers_batch.dataset.spreadsheet import write_csv


def csv_of(tmp_path: Path, rows: list[dict]) -> bytes:
    run: Run = open_run(str(finished(tmp_path / "run", PREDICTIONS, [predictions_batch(rows)])), PREDICTIONS)
    write_csv(run, str(tmp_path / "out" / "labels.csv"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["labels.csv"]
    return (tmp_path / "out" / "labels.csv").read_bytes()


def test_csv_has_a_byte_order_mark_and_a_line_per_image(tmp_path):
    failed = image_row("kaputt/ü.jpg", "truncated") | dict.fromkeys(predictions_schema().names[len(IMAGE_FIELDS) :])
    content = csv_of(tmp_path, [labelled("a/b.jpg", "Gänseblümchen", 0.98766), failed])
    assert content.startswith(b"\xef\xbb\xbfpath,prediction,probability,is_unknown,status,reason,message\r\n")
    assert list(csv.reader(content.decode("utf-8-sig").splitlines()))[1:] == [
        ["a/b.jpg", "Gänseblümchen", "0.9877", "False", "ok", "", ""],
        ["kaputt/ü.jpg", "", "", "", "failed", "truncated", "It is truncated."],
    ]


def test_csv_has_no_name_that_is_a_formula(tmp_path):
    names = ["=1+1.jpg", "+a.jpg", "-a.jpg", "@a.jpg", "\ta.jpg", "\ra.jpg", "a=b.jpg"]
    content = csv_of(tmp_path, [labelled(name, label="=HYPERLINK(1)") for name in names]).decode("utf-8-sig")
    rows = list(csv.reader(content.splitlines(keepends=True)))[1:]
    assert [row[0] for row in rows] == [f"'{name}" for name in names[:-1]] + ["a=b.jpg"]
    assert {row[1] for row in rows} == {"'=HYPERLINK(1)"}


def test_csv_quotes_names_with_commas_quotes_and_newlines(tmp_path):
    names = ["a,b.jpg", 'a"b.jpg', "a\nb.jpg", "a\r\nb.jpg", "a;b.jpg"]
    content = csv_of(tmp_path, [labelled(name) for name in names])
    with open(tmp_path / "out" / "labels.csv", encoding="utf-8-sig", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == names
    assert b'"a,b.jpg",' in content and b'"a""b.jpg",' in content and b'"a\nb.jpg",' in content
