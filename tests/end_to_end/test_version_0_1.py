"""Folders that version 0.1 wrote are resumed, grown, verified, trained on, reported on, reviewed and fine-tuned.

`tests/data/version_0_1` was made at /archive; each test works on a copy of it in another place. Of the photos in
`codes`, the second generation found one missing, one changed and one new.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers import encoded, random_pixels, run_shards_here, write

import flowers_batch as fb
from flowers_batch.classifier.model_folder import load_model, read_metrics
from flowers_batch.dataset.job import read_job
from flowers_batch.dataset.manifest import read_manifest, read_rows
from flowers_batch.dataset.run_folder import open_run, read_summary
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.dataset.shard_file import read_footer
from flowers_batch.dataset.tunings import UNKNOWN_TUNING
from flowers_batch.encoding.networks import tunings_of
from flowers_batch.storage.opening import open_folder

WRITTEN = Path(__file__).parents[1] / "data" / "version_0_1"
NULL = fb.EncodeConfig(network="null", shard_size=24)
LOGISTIC = fb.TrainConfig(("folder",), head="logistic")
RANDOM = fb.EncodeConfig(weights="random:3", precision="float32", shard_size=24)
TUNING = fb.FinetuneConfig(
    encode=RANDOM,
    train=fb.TrainConfig(("folder",)),
    unfreeze="all",
    epochs=2,
    batch_size=16,
    lr_multiplier=2.0,
    augment=("flip",),
)


@dataclass(frozen=True)
class Archive:
    """A copy of what version 0.1 wrote."""

    photos: Path
    run: Path


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """The copy, with the photos' times from the manifest, since Git does not keep them, and the paths of the copy."""
    shutil.copytree(WRITTEN, tmp_path, dirs_exist_ok=True)
    for path in (*tmp_path.rglob("*.json"), *tmp_path.rglob("_SUCCESS")):
        path.write_text(path.read_text().replace("/archive/", f"{tmp_path}/"))
    folder = open_folder(tmp_path / "run" / "codes")
    for shard in read_manifest(folder).shards:
        for row in read_rows(folder, shard).to_pylist():
            if (photo := tmp_path / "photos" / row["path"]).exists():
                os.utime(photo, ns=(0, nanoseconds(row["mtime"])))
    return Archive(tmp_path / "photos", tmp_path / "run")


def nanoseconds(time: datetime) -> int:
    """The time since 1970, exactly."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of a single actor run in this process."""
    for module in (sys.modules[fb.finetune.__module__], sys.modules[fb.verify.__module__]):
        monkeypatch.setattr(module, "run_on_one_actor", lambda work, cluster, reporter: work(2, 0, reporter))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the shards that actors are given, in this process and without Ray."""
    numbers: list[int] = []

    def run_shards(job, shards, *rest, **named):
        numbers.extend(shard.number for shard in shards)
        return run_shards_here(job, shards, *rest, **named)

    monkeypatch.setattr("flowers_batch.runs.execution.run_shards", run_shards)
    return numbers


@pytest.fixture
def trained_epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the epochs that are trained."""
    from flowers_batch.finetuning.trainer import Trainer

    numbers: list[int] = []
    epoch = Trainer._train_epoch

    def counted(self, number, *rest):
        numbers.append(number)
        return epoch(self, number, *rest)

    monkeypatch.setattr(Trainer, "_train_epoch", counted)
    return numbers


def contents(folder: Path) -> dict[str, bytes]:
    """The shards and manifest parts of a run's folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def labels_in(folder: Path) -> dict[str, str | None]:
    rows = open_run(folder, PREDICTIONS).batches(["path", "prediction"])
    return {row["path"]: row["prediction"] for batch in rows for row in batch.to_pylist()}


def add_photo(archive: Archive, name: str) -> None:
    write(archive.photos, {name: encoded(random_pixels(40, 40), "JPEG")})


def test_resuming_a_finished_run_encodes_nothing(archive, given):
    before = contents(archive.run / "codes")
    summary = fb.encode(archive.photos, archive.run / "codes", NULL)
    assert given == [] and contents(archive.run / "codes") == before
    assert (summary.images, summary.ok, summary.missing, summary.resumed) == (52, 51, 1, 52)
    assert json.loads((archive.run / "codes" / "job.json").read_text())["format"] == 2


def test_resuming_an_unfinished_run_encodes_only_missing_shards(archive, given):
    (archive.run / "codes" / "_SUCCESS").unlink()
    (archive.run / "codes" / "codes" / "shard-000001.parquet").unlink()
    summary = fb.encode(archive.photos, archive.run / "codes", NULL)
    assert given == [1] and summary.resumed == 52 - 24
    assert fb.verify(archive.run / "codes").is_complete


def test_growing_encodes_only_new_and_changed_photos(archive, given):
    add_photo(archive, "red/new.jpg")
    add_photo(archive, "blue/05.jpg")
    (archive.photos / "green" / "03.jpg").unlink()
    summary = fb.encode(archive.photos, archive.run / "codes", NULL)
    changes = {name: count for name, count in summary.changes.items() if count}
    assert changes == {"new": 1, "changed": 1, "missing": 1}
    assert (summary.images, summary.missing, summary.resumed) == (53, 2, 51)
    folder = open_folder(archive.run / "codes")
    manifest = read_manifest(folder)
    assert (len(manifest.runs), manifest.missing) == (3, 2)
    actions = [row["action"] for shard in manifest.shards for row in read_rows(folder, shard).to_pylist()]
    assert actions.count("missing") == 2 and "gone" not in actions
    assert fb.verify(archive.run / "codes", deep=True).is_complete


def test_missing_photo_is_pruned_or_returns(archive, given):
    folder = open_folder(archive.run / "codes")
    rows = [row for shard in read_manifest(folder).shards for row in read_rows(folder, shard).to_pylist()]
    (lost,) = (row for row in rows if row["action"] == "missing")
    pruned = Archive(archive.photos, archive.run.with_name("pruned"))
    shutil.copytree(archive.run, pruned.run)
    summary = fb.encode(pruned.photos, pruned.run / "codes", replace(NULL, prune=True))
    assert (summary.images, summary.missing, summary.changes["pruned"]) == (51, 0, 1)
    # A photo of the same size and time is the same photo, and its code exists.
    write(archive.photos, {lost["path"]: bytes(lost["bytes"])})
    os.utime(archive.photos / lost["path"], ns=(0, nanoseconds(lost["mtime"])))
    given.clear()
    summary = fb.encode(archive.photos, archive.run / "codes", NULL)
    assert (summary.images, summary.missing, summary.changes["returned"]) == (52, 0, 1) and given == []


@pytest.mark.parametrize("name", ["codes", "predictions", "tuned/codes", "tuned/fixed/codes", "tuned_predictions"])
def test_folders_of_0_1_are_complete(archive, name):
    assert fb.verify(archive.run / name).problems == []


@pytest.mark.parametrize("name", ["codes", "predictions", "tuned_predictions"])
def test_rows_of_0_1_equal_todays(archive, narrow, name):
    found = fb.verify(archive.run / name, deep=True)
    assert found.problems == [] and found.sampled == found.images - (name == "codes")


def test_training_label_issues_and_suggestions_work(archive, given):
    metrics = fb.train(archive.run / "codes", archive.run / "trained", LOGISTIC)
    assert metrics["test"]["photos"] and metrics["heads"]["logistic"]["C"] > 0
    assert load_model(archive.run / "model").training["labels"][0] == "folder:-1", "each photo's own folder"
    found = fb.label_issues(archive.run / "model", archive.run / "issues.csv")
    before = (archive.run / "suspects.csv").read_text().splitlines()[1:]
    assert sorted(row["path"] for row in found) == sorted(line.split(",")[0] for line in before)
    add_photo(archive, "red/new.jpg")  # all others have a label
    fb.predict(archive.photos, archive.run / "predictions", archive.run / "model", fb.PredictConfig(top_k=3))
    assert [row["path"] for row in fb.suggest(archive.run / "predictions")] == ["red/new.jpg"]


def test_training_again_keeps_the_test_photos(archive):
    before = pq.read_table(archive.run / "model" / "split.parquet")
    config = fb.TrainConfig(("folder", str(archive.run / "corrections.csv")), head="logistic")
    metrics = fb.train(archive.run / "codes", archive.run / "model", config)
    after = pq.read_table(archive.run / "model" / "split.parquet")
    # Photos that validated are trained on too; those that tested the model still do.
    expected = [side if side == "test" else "train" for side in before["side"].to_pylist()]
    assert metrics["split"]["moved"] == 0 and after["split"].to_pylist() == expected


@pytest.mark.parametrize("name", ["predictions", "tuned_predictions", "model", "tuned", "codes"])
def test_report_shows_everything(archive, name):
    page = Path(fb.report(archive.run / name)).read_text()
    if name in ("predictions", "model"):
        assert "Held-out" in page or "held-out" in page
    if name.startswith("tuned"):
        assert "Effect of fine-tuning" in page and "from random weights (random:3)" in page


def test_review_continues_its_labels_and_trains(archive):
    from flowers_batch.pages.review.review import Review

    review = Review(str(archive.run / "predictions"), str(archive.run / "labels.csv"))
    try:
        assert set(review.labels.journal.labels) == {"red/01.jpg", "blue/03.jpg", "green/02.jpg"}
        assert len(review.views.select("uncertain")["rows"]) == 47
        review.training.retraining.start()
        while review.training.retraining.status.state == "running":
            time.sleep(0.05)
        assert review.training.retraining.status.state == "done", review.training.retraining.status.error
    finally:
        review.close()


def test_prediction_from_photos_relabels_only_changed_photos(archive, given):
    model = archive.run / "model"
    config = fb.PredictConfig(shard_size=24, top_k=3)
    summary = fb.predict(archive.photos, archive.run / "predictions", model, config)
    assert summary.fingerprint == read_summary(open_folder(WRITTEN / "run" / "predictions"))["fingerprint"]
    assert summary.images == 51 and given == []
    add_photo(archive, "red/new.jpg")
    assert fb.predict(archive.photos, archive.run / "predictions", model, config).resumed == 51 and given == [3]


def test_predictions_are_made_from_codes_of_0_1(archive, given):
    fb.predict(archive.run / "codes", archive.run / "labels", archive.run / "model", fb.PredictConfig(top_k=3))
    assert given == [0, 1, 2, 3] and fb.verify(archive.run / "labels").is_complete
    here, there = labels_in(archive.run / "labels"), labels_in(archive.run / "predictions")
    assert {path: here[path] for path in there} == there


def test_codes_of_a_network_that_0_1_tuned_get_no_learning_curve(archive):
    """Version 0.1 recorded it by the name of the weights alone."""
    assert read_job(open_folder(archive.run / "tuned" / "codes")).tuned_on == (UNKNOWN_TUNING,)
    assert read_job(open_folder(archive.run / "codes")).tuned_on == ()
    assert len(fb.train(archive.run / "tuned" / "codes", archive.run / "head", LOGISTIC)["learning_curve"]) == 1
    weights = str(archive.run / "tuned" / "network.safetensors")
    assert tunings_of(fb.EncodeConfig(weights=weights)) == (UNKNOWN_TUNING,)


@pytest.mark.slow
def test_stopped_fine_tuning_resumes_after_its_epoch(archive, narrow, given, trained_epochs):
    frozen = contents(archive.run / "stopped" / "fixed")
    metrics = fb.finetune(archive.photos, archive.run / "stopped", replace(TUNING, epochs=3))
    assert trained_epochs == [2, 3] and contents(archive.run / "stopped" / "fixed") == frozen
    assert [epoch["lr_multiplier"] for epoch in metrics["tuning"]["epochs"]][:2] == [0.0, 2.0]
    assert not (archive.run / "stopped" / "frozen").exists()
    assert metrics["tuning"]["frozen"]["model"] == str(archive.run / "stopped" / "fixed" / "model")
    assert not metrics["tuning"]["best_epoch"] or given == [0, 1, 2]


def test_finished_fine_tuning_does_nothing(archive, narrow, given, trained_epochs):
    metrics = fb.finetune(archive.photos, archive.run / "tuned", TUNING)
    assert metrics == read_metrics(open_folder(archive.run / "tuned")) and given == trained_epochs == []
    assert metrics["tuning"]["initial_weights"] == "random:3"
    model = load_model(archive.run / "tuned")
    assert model.training["initial_weights"] == "random:3" and model.training["max_memory_mb"] is None


def test_digests_are_those_of_version_0_1():
    for path in sorted(WRITTEN.rglob("job.json")):
        content = json.loads(path.read_text())
        assert read_job(open_folder(path.parent)).fingerprint.digest == content["digest"]
        kind = content["kind"]
        assert read_footer(open_folder(path.parent), kind, 0).fingerprint == content["digest"]


def test_summary_and_footer_have_the_names_of_this_version(archive):
    summary = open_run(archive.run / "codes", CODES).summary
    assert (summary["missing"], summary["resumed"], summary["changes"]["missing"]) == (1, 50, 1)
    footer = read_footer(open_folder(archive.run / "codes"), CODES, 0)
    shard = read_manifest(open_folder(archive.run / "codes")).shards[0]
    assert footer.inputs_digest == shard.inputs_digest and len(footer.content_digest) == 64


def newer(archive: Archive, name: str) -> None:
    """Give a file the format number of a later version."""
    path = archive.run / name
    if path.suffix == ".parquet":
        table, notes = pq.read_table(path), pq.read_metadata(path).metadata
        key = next(key for key in notes if key.startswith(b"flowers_batch"))
        with pq.ParquetWriter(path, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({key: json.dumps(json.loads(notes[key]) | {"format": 3}).encode()})
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 3}))


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("codes/job.json", lambda run: fb.train(run / "codes", run / "new", LOGISTIC)),
        ("codes/_SUCCESS", lambda run: fb.train(run / "codes", run / "new", LOGISTIC)),
        ("codes/manifest/part-000000.parquet", lambda run: fb.encode(run.parent / "photos", run / "codes", NULL)),
        ("codes/codes/shard-000000.parquet", lambda run: fb.encode(run.parent / "photos", run / "codes", NULL)),
        ("model/model.json", lambda run: fb.predict(run / "codes", run / "new", run / "model")),
        ("model/metrics.json", lambda run: fb.report(run / "model")),
        ("tuned/tuning.json", lambda run: fb.finetune(run.parent / "photos", run / "tuned", TUNING)),
    ],
)
def test_newer_format_is_refused(archive, narrow, name, use):
    newer(archive, name)
    before = contents(archive.run)
    message = (
        rf"{name} has format 3, and this version of flowers_batch reads formats up to 2: install a newer version\.$"
    )
    with pytest.raises(fb.InputError, match=message):
        use(archive.run)
    assert contents(archive.run) == before


def test_unknown_fields_are_ignored(archive, given):
    for path in (*archive.run.rglob("*.json"), *archive.run.rglob("_SUCCESS")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"unheard_of": [1]}))
    assert fb.encode(archive.photos, archive.run / "codes", NULL).resumed == 52 and given == []
    assert fb.verify(archive.run / "codes").is_complete
    load_model(archive.run / "model")
    fb.report(archive.run / "predictions")
