"""Photos that are most worth a label."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from codes_folder import labels, write_codes
from helpers import read_csv
from run_folders import write_run

import flowers_batch as fb
from flowers_batch.classifier.model_folder import load_model
from flowers_batch.cli.main import main
from flowers_batch.dataset.job import Job
from flowers_batch.dataset.schema import PREDICTIONS
from flowers_batch.encoding.labeller import CodesLabeller, Labeller
from flowers_batch.storage.opening import open_folder


@pytest.fixture(scope="module")
def half_labelled(tmp_path_factory):
    """Codes of which few are labelled, and predictions of all."""
    base = tmp_path_factory.mktemp("suggest")
    names = [str(number % 3) for number in range(300)]
    codes = write_codes(base / "codes", names, copies=4, spread=3)
    labelled = [f"{name}/{number:03d}.jpg" for number, name in enumerate(names)][::5]
    (base / "labels.csv").write_text("path,label\n" + "".join(f"{path},{path[0]}\n" for path in labelled))
    fb.train(codes, base / "model", fb.TrainConfig((str(base / "labels.csv"),), head="logistic"))
    write_predictions(base / "predictions", codes, base / "model")
    return base, set(labelled)


def write_predictions(folder: Path, codes: Path, model: Path, *, from_codes: bool = True) -> None:
    """What `predict` makes of codes, without a run; unless `from_codes`, as if of photos."""
    trained = load_model(model)
    worker = CodesLabeller(str(codes), trained.fingerprint, Labeller(trained.head, 3))
    source = str(codes) if from_codes else None
    job = Job(PREDICTIONS, str(codes), trained.fingerprint, "null", model=str(model), codes=source)
    write_run(open_folder(folder), job, [list(worker.batches(0, pa.table({}), {}))])


def test_suggested_photos_are_unlabelled_uncertain_and_different(half_labelled, tmp_path):
    base, labelled = half_labelled
    rows = fb.suggest(base / "predictions", 30, tmp_path / "suggested.csv")
    assert len(rows) == 30 and not labelled & {row["path"] for row in rows}
    assert [row["path"] for row in read_csv(tmp_path / "suggested.csv")] == [row["path"] for row in rows]
    assert all(row["label"] == "" for row in rows)
    found = {row["path"]: row for row in pq.read_table(base / "predictions" / "predictions").to_pylist()}
    # The first photo is labelled, and its copies by that: equal ones are not asked for.
    assert "0/300.jpg" not in {row["path"] for row in rows}
    digests = [found[row["path"]]["sha256"] for row in rows]
    assert len(set(digests)) == 30
    mean = np.mean([row["probability"] for row in rows])
    assert mean < np.mean([row["probability"] for row in found.values()]) - 0.1


def test_photos_that_were_labelled_since_are_not_suggested(half_labelled, tmp_path):
    base, _ = half_labelled
    first = [row["path"] for row in fb.suggest(base / "predictions", 20)]
    # Every second path is written in another way.
    rows = [f"{'./' * (number % 2)}{path}\t0\n" for number, path in enumerate(first[:10])]
    (tmp_path / "since.csv").write_text("Path\tLabel\n" + "".join(rows))
    second = [row["path"] for row in fb.suggest(base / "predictions", 20, labels=[str(tmp_path / "since.csv")])]
    assert len(second) == 20 and not set(first[:10]) & set(second)


def test_photos_of_left_out_classes_are_not_suggested(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=30, rose=30, tulip=2))
    fb.train(codes, tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    write_predictions(tmp_path / "predictions", codes, tmp_path / "model")
    assert fb.suggest(tmp_path / "predictions") == []


def test_fewer_are_suggested_if_there_are_no_more(half_labelled):
    base, labelled = half_labelled
    assert len(fb.suggest(base / "predictions", 10_000)) == 308 - len(labelled) - 4
    with pytest.raises(fb.InputError, match="`count` must be 1 or more"):
        fb.suggest(base / "predictions", 0)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """Codes of three classes, one of them rare; two of the photos have failed."""
    names = labels(daisy=100, rose=100, tulip=10)
    return write_codes(tmp_path_factory.mktemp("unlabelled") / "codes", names, failed=2, copies=5, spread=0.5)


def test_codes_alone_suggest_typical_photos_of_all_classes(unlabelled, tmp_path):
    rows = fb.suggest(unlabelled, 6, tmp_path / "first.csv")
    assert len(rows) == 6 and all(list(row) == ["path", "label"] and row["label"] == "" for row in rows)
    assert {row["path"].split("/")[0] for row in rows} == {"daisy", "rose", "tulip"}
    assert [row["path"] for row in read_csv(tmp_path / "first.csv")] == [row["path"] for row in rows]
    assert fb.suggest(unlabelled, 6) == rows


def test_labelled_and_failed_photos_and_equal_copies_are_not_suggested(unlabelled, tmp_path):
    found = pq.read_table(unlabelled / "codes").to_pylist()
    (tmp_path / "given.csv").write_text("path,label\n" + "".join(f"{row['path']},x\n" for row in found[:50]))
    paths = {row["path"] for row in fb.suggest(unlabelled, 10_000, labels=[str(tmp_path / "given.csv")])}
    rest = [row for row in found[50:] if row["status"] == "ok"]
    assert paths <= {row["path"] for row in rest} and len(paths) == len({row["sha256"] for row in rest})


def test_large_archives_are_sampled(unlabelled, monkeypatch):
    monkeypatch.setattr("flowers_batch.classifier.suggestions.MAX_CANDIDATES", 20)
    sampled = {row["path"] for row in fb.suggest(unlabelled, 20)}
    assert len(sampled) == 20
    for count in (5, 19):
        assert {row["path"] for row in fb.suggest(unlabelled, count)} <= sampled


def test_suggestions_of_photos_without_codes_are_no_near_duplicates(tmp_path):
    codes = write_codes(tmp_path / "codes", labels(daisy=40, rose=40), copies=10, spread=3)
    given = [
        f"{name}/{number:03d}.jpg"
        for name, start in (("daisy", 20), ("rose", 60))
        for number in range(start, start + 20)
    ]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"{path},{path.split('/')[0]}\n" for path in given))
    fb.train(codes, tmp_path / "model", fb.TrainConfig((str(tmp_path / "labels.csv"),), head="logistic"))
    write_predictions(tmp_path / "predictions", codes, tmp_path / "model", from_codes=False)
    rows = fb.suggest(tmp_path / "predictions", 1000)
    found = {row["path"]: row for row in pq.read_table(tmp_path / "predictions" / "predictions").to_pylist()}
    hashes = [found[row["path"]]["phash"] for row in rows]
    assert len(rows) == 40 and all((one ^ other).bit_count() > 8 for one, other in combinations(hashes, 2))
    margins = [two[0] - two[1] for row in rows for two in [found[row["path"]]["top_probabilities"]]]
    assert (np.diff(margins) > -1e-6).all()


def test_command_lists_suggestions_of_codes_and_of_predictions(half_labelled, unlabelled, capsys, tmp_path):
    for folder in (half_labelled[0] / "predictions", unlabelled):
        arguments = ["suggest", str(folder), "--count", "3"]
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--json"])
        assert ended.value.code == 0
        assert len(json.loads(capsys.readouterr().out)["suggested"]) == 3
        with pytest.raises(SystemExit):
            main([*arguments, "--out", str(tmp_path / "out.csv")])
        told = capsys.readouterr().out
        assert "--labels" in told and ("%" in told) == (folder != unlabelled) and (tmp_path / "out.csv").exists()


def test_command_says_that_no_photo_is_left(tmp_path, capsys):
    codes = write_codes(tmp_path / "codes", labels(daisy=4, rose=4))
    fb.train(codes, tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    write_predictions(tmp_path / "predictions", codes, tmp_path / "model")
    with pytest.raises(SystemExit) as ended:
        main(["suggest", str(tmp_path / "predictions")])
    assert ended.value.code == 0 and capsys.readouterr().out == "no photo without a label is left\n"


def test_folders_of_anything_else_are_refused(tmp_path):
    with pytest.raises(fb.InputError, match="neither codes nor predictions"):
        fb.suggest(tmp_path)
