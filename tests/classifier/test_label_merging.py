"""Labels of several files, merged."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from codes_folder import labels, write_codes

import flowers_batch as fb
from flowers_batch.classifier.labels_file import read_labels
from flowers_batch.cli.metrics_rendering import training_text


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Three people's labels of one archive, who disagree on two photos; one writes paths in another way."""
    write_codes(tmp_path / "codes", labels(daisy=20, rose=20))
    daisies, roses = ([f"{name}/{row:03d}.jpg" for row in rows] for name, rows in CLASSES)
    return [
        write(tmp_path / "anna.csv", dict.fromkeys(daisies, "daisy") | {"gone.jpg": "rose"}),
        write(tmp_path / "ben.csv", dict.fromkeys(roses, "rose") | {f"./{daisies[0]}": "rose", "gone.jpg": "daisy"}),
        write(tmp_path / "cleo.csv", {daisies[0]: "daisy", daisies[1]: "rose", daisies[2]: "daisy"}),
    ]


CLASSES = (("daisy", range(20)), ("rose", range(20, 40)))


def write(file: Path, given: dict[str, str]) -> str:
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("path", "label"), *given.items()])
    return str(file)


def train(tmp_path: Path, files: list[str]) -> dict:
    return fb.train(tmp_path / "codes", tmp_path / "model", fb.TrainConfig(tuple(files), head="logistic"))


def test_disagreements_are_listed_and_the_last_file_counts(tmp_path, files):
    anna, ben, cleo = files
    metrics = train(tmp_path, files)
    assert metrics["disagreements"] == [
        {"path": "daisy/000.jpg", "labels": {anna: "daisy", ben: "rose", cleo: "daisy"}},
        {"path": "daisy/001.jpg", "labels": {anna: "daisy", cleo: "rose"}},
    ]
    text = training_text(metrics, "model")
    assert "2 photos have different labels in different files, of which the last one counts" in text
    assert f"daisy/001.jpg: daisy ({anna}), rose ({cleo})" in text
    kept = read_labels(str(tmp_path / "model" / "labels.parquet")).labels
    assert (kept["daisy/000.jpg"], kept["daisy/001.jpg"]) == ("daisy", "rose")


def test_disagreements_can_be_settled_in_their_file(tmp_path, files):
    train(tmp_path, files)
    file = tmp_path / "model" / "disagreements.csv"
    with file.open(encoding="utf-8-sig", newline="") as rows:
        found = list(csv.DictReader(rows))
    assert [row["label"] for row in found] == ["daisy", "rose"]
    assert [row[f"label in {files[1]}"] for row in found] == ["rose", ""]
    settled = tmp_path / "settled.csv"
    settled.write_text(file.read_text("utf-8-sig").replace("daisy/001.jpg,rose", "daisy/001.jpg,daisy"))
    again = train(tmp_path, [*files, str(settled)])
    assert len(again["disagreements"]) == 2, "they are still told"
    assert read_labels(str(tmp_path / "model" / "labels.parquet")).labels["daisy/001.jpg"] == "daisy"


def test_files_that_agree_leave_no_file_of_disagreements(tmp_path, files):
    train(tmp_path, files)
    assert (tmp_path / "model" / "disagreements.csv").exists()
    metrics = train(tmp_path, [files[0], write(tmp_path / "roses.csv", ROSES)])
    assert metrics["disagreements"] == [] and not (tmp_path / "model" / "disagreements.csv").exists()
    assert "different labels" not in training_text(metrics, "model")


ROSES = {f"rose/{row:03d}.jpg": "rose" for row in range(20, 40)}


def test_choices_of_several_files_are_combined(tmp_path, files):
    """A photo that one person drew at random stays a random one when another labels it in a group."""
    rows = "".join(f"{path},rose,random\n" for path in [*ROSES][:12])
    (tmp_path / "drawn.csv").write_text(f"path,label,chosen\n{rows}daisy/000.jpg,daisy,view\n")
    rows = "".join(f"./{path},rose,group\n" for path in [*ROSES][10:])
    (tmp_path / "groups.csv").write_text(f"path,label,chosen\n{rows}")
    metrics = train(tmp_path, [files[0], str(tmp_path / "drawn.csv"), str(tmp_path / "groups.csv")])
    assert metrics["chosen"] == {"random": 12, "group": 8}, "what is not recorded stays not recorded"
