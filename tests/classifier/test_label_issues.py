"""Labels that are probably wrong."""

from __future__ import annotations

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from codes_folder import labels, write_codes
from helpers import read_csv

import flowers_batch as fb
from flowers_batch.classifier.label_issues import find_wrong_labels
from flowers_batch.classifier.model_folder import load_model
from flowers_batch.cli.main import main


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory):
    """A codes folder, its five wrong labels by path, and a model that was trained on them beside `labels.csv`."""
    base = tmp_path_factory.mktemp("mislabelled")
    codes = write_codes(base / "codes", labels(daisy=60, rose=60, tulip=60), spread=0.5)
    wrong = {f"daisy/{number:03d}.jpg": "rose" for number in (3, 14, 25)}
    wrong |= {
        "tulip/130.jpg": "daisy",
        "tulip/141.jpg": "rose",
    }
    file = base / "labels.csv"
    file.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in wrong.items()))
    fb.train(codes, base / "model", fb.TrainConfig(("folder", str(file)), head="logistic"))
    return codes, wrong, base / "model"


def test_wrong_labels_are_found_with_the_right_ones(mislabelled):
    _, wrong, model = mislabelled
    rows = fb.label_issues(model)
    assert 2 <= len(rows) <= 5 and {row["path"] for row in rows} <= set(wrong)
    for row in rows:
        assert row["label"] == wrong[row["path"]]
        assert row["suggested"] == row["path"].split("/")[0] and row["probability"] > 0.6
    assert rows == sorted(rows, key=lambda row: row["label_probability"])


def test_corrected_issues_are_labels_for_the_next_training(mislabelled, tmp_path):
    codes, _, model = mislabelled
    rows = fb.label_issues(model, tmp_path / "issues.csv")
    found = read_csv(tmp_path / "issues.csv")
    assert [row["path"] for row in found] == [row["path"] for row in rows]
    with (tmp_path / "corrected.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows(row | {"label": row["suggested"]} for row in found)
    files = ("folder", str(model.parent / "labels.csv"), str(tmp_path / "corrected.csv"))
    config = fb.TrainConfig(files, head="logistic")
    fb.train(codes, tmp_path / "again", config)
    named = {row["path"]: row["label"] for row in pq.read_table(tmp_path / "again" / "split.parquet").to_pylist()}
    assert all(named[row["path"]] == row["path"].split("/")[0] for row in rows)


def test_labels_files_are_found_from_any_directory(mislabelled, tmp_path, monkeypatch):
    codes, _, model = mislabelled
    expected = fb.label_issues(model)
    (tmp_path / "labels.csv").write_text((model.parent / "labels.csv").read_text())
    monkeypatch.chdir(tmp_path)
    fb.train(codes, "relative", fb.TrainConfig(("folder", "labels.csv"), head="logistic"))
    monkeypatch.chdir("/")
    assert fb.label_issues(tmp_path / "relative") == expected


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_labels_changed_after_training_change_no_issue(mislabelled, tmp_path, change):
    codes, wrong, _ = mislabelled
    file = tmp_path / "labels.csv"
    file.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in wrong.items()))
    fb.train(codes, tmp_path / "model", fb.TrainConfig(("folder", str(file)), head="logistic"))
    expected = fb.label_issues(tmp_path / "model")
    if change == "edited":
        file.write_text("path,label\ndaisy/000.jpg,tulip\n")
    else:
        file.unlink()
    assert fb.label_issues(tmp_path / "model") == expected


def test_folders_named_by_decimals_keep_their_names(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(**{"1.0": 40, "2.0": 40}), spread=0.5)
    (tmp_path / "labels.csv").write_text("path,label\n1.0/003.jpg,2.0\nnone.jpg,other\n")
    config = fb.TrainConfig(("folder", str(tmp_path / "labels.csv")), head="logistic")
    assert fb.train(codes, tmp_path / "model", config)["classes"] == ["1.0", "2.0"]
    assert [(row["path"], row["suggested"]) for row in fb.label_issues(tmp_path / "model")] == [("1.0/003.jpg", "1.0")]


def test_copies_with_the_same_wrong_label_are_found(tmp_path):
    """A classifier that had been fitted to one of the copies would confirm the labels of the others."""
    names = labels(daisy=60, rose=60)
    codes = write_codes(tmp_path / "codes", names, copies=1)
    wrong = ["daisy/000.jpg", "daisy/120.jpg", "daisy/121.jpg"]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{path},rose\n" for path in wrong))
    fb.train(codes, tmp_path / "model", fb.TrainConfig(("folder", str(tmp_path / "labels.csv")), head="logistic"))
    assert {row["path"] for row in fb.label_issues(tmp_path / "model")[:3]} == set(wrong)


def test_least_probable_labels_come_first():
    """And not those of the smallest margin to the likeliest label, which are in the order 1, 2, 0."""
    targets = np.repeat([0, 1, 2], 20)
    probabilities = np.full((60, 3), 0.05)
    probabilities[np.arange(60), targets] = 0.9
    probabilities[:3] = [[0.01, 0.93, 0.06], [0.03, 0.97, 0.00], [0.02, 0.95, 0.03]]
    assert find_wrong_labels(probabilities, targets).tolist() == [0, 2, 1]


def test_labels_that_are_the_likeliest_are_never_listed(monkeypatch):
    monkeypatch.setattr("cleanlab.filter.find_label_issues", lambda targets, *_, **__: np.full(len(targets), True))
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1], 90)
    targets = random.integers(0, 3, 90)
    found = find_wrong_labels(probabilities, targets)
    assert sorted(found.tolist()) == np.flatnonzero(probabilities.argmax(1) != targets).tolist()


def test_labels_of_left_out_classes_are_not_judged(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=30, rose=30, tulip=2))
    fb.train(codes, tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    assert not {row["path"] for row in fb.label_issues(tmp_path / "model")} & {"tulip/060.jpg", "tulip/061.jpg"}


def test_only_photo_of_a_class_is_not_judged(tmp_path):
    """No classifier that was not fitted to it knows its class: its label would always look wrong."""
    codes = write_codes(tmp_path / "codes", labels(daisy=30, rose=30))
    wrong = {"daisy/003.jpg": "rose", "rose/040.jpg": "daisy", "daisy/007.jpg": "tulip"}
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in wrong.items()))
    fb.train(codes, tmp_path / "model", fb.TrainConfig(("folder", str(tmp_path / "labels.csv")), head="logistic"))
    assert load_model(tmp_path / "model").head.classes == ("daisy", "rose", "tulip")
    found = {row["path"] for row in fb.label_issues(tmp_path / "model")}
    assert found and found <= {"daisy/003.jpg", "rose/040.jpg"}


def test_command_lists_issues(mislabelled, capsys, tmp_path):
    _, wrong, model = mislabelled
    with pytest.raises(SystemExit) as ended:
        main(["label-issues", str(model), "--json"])
    assert ended.value.code == 0 and len(json.loads(capsys.readouterr().out)["label_issues"]) >= 2
    with pytest.raises(SystemExit):
        main(["label-issues", str(model), "--out", str(tmp_path / "out.csv")])
    told = capsys.readouterr().out
    assert "--labels" in told and any(told.startswith(label) for label in wrong.values())
    assert (tmp_path / "out.csv").exists()


def test_command_says_that_no_label_looks_wrong(tmp_path, capsys):
    codes = write_codes(tmp_path / "codes", labels(daisy=4, rose=4))
    fb.train(codes, tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    with pytest.raises(SystemExit) as ended:
        main(["label-issues", str(tmp_path / "model")])
    assert ended.value.code == 0 and capsys.readouterr().out == "no label looks wrong\n"
