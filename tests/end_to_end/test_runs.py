"""Whole runs through a real Ray, with a network that takes no time; one at the end with VGG16 itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import draw_archive
from PIL import Image

import flowers_batch as fb
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import codes_of

NULL = fb.EncodeConfig(network="null", shard_size=8)
pytestmark = pytest.mark.usefixtures("local_ray")


def rows(folder: Path, kind: str, *columns: str) -> list[dict]:
    """Return all rows of a finished run."""
    return [row for batch in open_run(str(folder), kind).batches(columns) for row in batch.to_pylist()]


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what changes when a shard's file is rewritten: its inode and time, by name."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("shard-*")}


@pytest.fixture(scope="module")
def encoded(archive, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoded") / "codes"
    fb.encode(str(archive), str(folder), NULL)
    return folder


@pytest.fixture(scope="module")
def model(encoded, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "model"
    fb.train(str(encoded), str(folder), fb.TrainConfig(("folder",)))
    return folder


def test_every_image_is_one_row_in_the_order_of_its_path(archive, encoded):
    expected = sorted(str(path.relative_to(archive)) for path in archive.rglob("*.png"))
    assert [row["path"] for row in rows(encoded, "codes", "path")] == expected
    assert fb.verify(str(encoded)).is_complete


def test_summary_counts_what_was_done(archive, encoded):
    summary = json.loads((encoded / "_SUCCESS").read_text())
    assert (summary["images"], summary["ok"], summary["failed"], summary["ignored"]) == (30, 30, 0, 1)
    assert (summary["resumed"], summary["shards"], summary["reasons"]) == (0, 4, {})
    assert summary["images_per_second"] > 0
    stages = {"read", "decode", "wait", "network", "write"}
    assert set(summary["stages"]) == set(summary["stage_shares"]) == set(summary["stage_rates"]) == stages
    assert all(0 <= share <= 1 for share in summary["stage_shares"].values())
    rates = {name: rate for name, rate in summary["stage_rates"].items() if name != "wait"}
    assert summary["stage_rates"]["wait"] is None and min(rates.values()) >= summary["images_per_second"]


def test_run_in_which_most_images_fail_ends_early(tmp_path):
    names = tmp_path / "list.txt"
    names.write_text("\n".join(f"{number:03d}.png" for number in range(104)))
    with pytest.raises(fb.RunError, match=r"56 of 104 images failed \(56 missing; 48 not tried\)"):
        fb.encode(names, tmp_path / "codes", NULL)
    assert not (tmp_path / "codes" / "_SUCCESS").exists()


def test_running_again_does_nothing(archive, encoded):
    before = files(encoded / "codes")
    summary = fb.encode(str(archive), str(encoded), NULL)
    assert (summary.resumed, summary.images, summary.actors) == (30, 30, [])
    assert files(encoded / "codes") == before


def test_only_missing_and_broken_shards_are_rewritten(archive, encoded, tmp_path):
    folder = shutil.copytree(encoded, tmp_path / "codes")
    shards = folder / "codes"
    (shards / "shard-000001.parquet").unlink()
    (shards / "shard-000002.parquet").write_bytes((shards / "shard-000002.parquet").read_bytes()[:-20])
    before = files(shards)
    summary = fb.encode(str(archive), str(folder), NULL)
    assert summary.resumed == 14
    after = files(shards)
    assert all((before.get(name) == after[name]) == (name[10:12] in ("00", "03")) for name in after if name[6:])
    assert fb.verify(str(folder)).is_complete


def test_bad_image_fails_alone(tmp_path):
    photos = draw_archive(tmp_path / "photos", 3)
    (photos / "red" / "0001.png").write_bytes(b"")
    (photos / "green" / "0001.png").write_text("a shopping list")
    (photos / "blue" / "missing.jpg").symlink_to(tmp_path / "nothing")
    whole = (photos / "blue" / "0001.png").read_bytes()
    (photos / "blue" / "0001.png").write_bytes(whole[: len(whole) // 2])
    summary = fb.encode(str(photos), str(tmp_path / "codes"), NULL)
    assert (summary.images, summary.ok, summary.failed) == (10, 6, 4)
    assert summary.reasons == {"not_an_image": 2, "missing": 1, "truncated": 1}
    for row in rows(tmp_path / "codes", "codes", "path", "status", "reason", "message", "code"):
        assert (row["status"] == "ok") == (row["code"] is not None) == (row["reason"] is None) == (not row["message"])


def test_codes_of_other_settings_are_never_mixed_in(archive, encoded):
    before = files(encoded / "codes")
    with pytest.raises(fb.InputError, match=r"code_dtype \(float32, not float16\)"):
        fb.encode(str(archive), str(encoded), fb.EncodeConfig(network="null", code_dtype="float32", shard_size=8))
    assert files(encoded / "codes") == before


def test_another_archive_is_never_mixed_in(tmp_path):
    photos = draw_archive(tmp_path / "photos", 2)
    fb.encode(str(photos), str(tmp_path / "codes"), NULL)
    (tmp_path / "others").mkdir()
    shutil.copy(photos / "red" / "0000.png", tmp_path / "others" / "x.png")
    with pytest.raises(fb.InputError, match="None of the images in"):
        fb.encode(tmp_path / "others", tmp_path / "codes", NULL)
    (tmp_path / "codes" / "_SUCCESS").unlink()
    with pytest.raises(fb.InputError, match="None of the images in"):
        fb.encode(tmp_path / "others", tmp_path / "codes", NULL)
    assert fb.encode(photos, tmp_path / "codes", NULL).resumed == 6


def test_empty_folder_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "readme.txt").write_text("none here")
    with pytest.raises(fb.InputError, match=r"no images in .*/photos \(ignored: 1 \.txt\)"):
        fb.encode(str(tmp_path / "photos"), str(tmp_path / "codes"), NULL)
    assert not (tmp_path / "codes" / "_SUCCESS").exists()


def test_labels_from_photos_equal_labels_from_codes(archive, encoded, model, tmp_path):
    fb.predict(str(archive), str(tmp_path / "photos"), str(model), fb.PredictConfig(shard_size=8, top_k=2))
    fb.predict(str(encoded), str(tmp_path / "codes"), str(model), fb.PredictConfig(top_k=2))
    columns = ("path", "status", "prediction", "probability", "top_labels", "top_probabilities", "is_unknown")
    from_photos = rows(tmp_path / "photos", "predictions", *columns)
    assert from_photos == rows(tmp_path / "codes", "predictions", *columns)
    assert len(from_photos) == 30
    assert all(row["top_labels"][0] == row["prediction"] and len(row["top_labels"]) == 2 for row in from_photos)
    right = sum(row["path"].startswith(row["prediction"]) for row in from_photos)
    assert right >= 27
    assert not (tmp_path / "photos" / "codes").exists()
    for name in ("photos", "codes"):
        assert fb.verify(str(tmp_path / name)).is_complete


def test_failed_codes_are_failed_predictions_with_their_reasons(model, tmp_path):
    photos = draw_archive(tmp_path / "photos", 2)
    (photos / "red" / "0001.png").write_bytes(b"no picture")
    fb.encode(str(photos), str(tmp_path / "codes"), NULL)
    summary = fb.predict(str(tmp_path / "codes"), str(tmp_path / "labels"), str(model))
    assert (summary.ok, summary.failed, summary.reasons) == (5, 1, {"not_an_image": 1})
    failed = [row for row in rows(tmp_path / "labels", "predictions", "path", "prediction", "reason") if row["reason"]]
    assert failed == [{"path": "red/0001.png", "prediction": None, "reason": "not_an_image"}]


@pytest.mark.slow
def test_retrained_model_leaves_no_old_label(encoded, model, tmp_path):
    fb.predict(str(encoded), str(tmp_path / "labels"), str(model))
    names = tmp_path / "names.csv"
    names.write_text(
        "path,label\n" + "".join(f"{row['path']},new {row['path'][:3]}\n" for row in rows(encoded, "codes", "path"))
    )
    fb.train(str(encoded), str(tmp_path / "model"), fb.TrainConfig(labels=(str(names),)))
    summary = fb.predict(str(encoded), str(tmp_path / "labels"), str(tmp_path / "model"))
    assert summary.resumed == 0
    assert all(row["prediction"].startswith("new ") for row in rows(tmp_path / "labels", "predictions", "prediction"))
    assert fb.verify(str(tmp_path / "labels")).is_complete


@pytest.mark.slow
def test_run_replaced_only_in_job_json_is_restored(encoded, model, tmp_path):
    """Model A's labels are whole; model B's run is killed before its first shard; A again must be A altogether."""
    fb.predict(str(encoded), str(tmp_path / "labels"), str(model))
    fb.train(str(encoded), str(tmp_path / "other"), fb.TrainConfig(("folder",), seed=1, head="mlp"))
    fb.predict(str(encoded), str(tmp_path / "others"), str(tmp_path / "other"))
    shutil.copy(tmp_path / "others" / "job.json", tmp_path / "labels" / "job.json")
    (tmp_path / "labels" / "_SUCCESS").unlink()
    summary = fb.predict(str(encoded), str(tmp_path / "labels"), str(model))
    assert summary.resumed == 30
    assert fb.verify(str(tmp_path / "labels")).is_complete


def test_moved_archive_keeps_its_codes(archive, tmp_path):
    photos = shutil.copytree(archive, tmp_path / "before")
    fb.encode(str(photos), str(tmp_path / "codes"), NULL)
    photos.rename(tmp_path / "after")
    assert fb.encode(str(tmp_path / "after"), str(tmp_path / "codes"), NULL).resumed == 30
    assert json.loads((tmp_path / "codes" / "job.json").read_text())["images"] == str(tmp_path / "after")


@pytest.mark.slow
def test_labels_of_changed_codes_are_rewritten(model, tmp_path):
    photos = draw_archive(tmp_path / "photos", 4)
    whole = (photos / "red" / "0000.png").read_bytes()
    times = os.stat(photos / "red" / "0000.png")
    (photos / "red" / "0000.png").write_bytes(bytes(len(whole)))
    os.utime(photos / "red" / "0000.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    fb.encode(str(photos), str(tmp_path / "codes"), NULL)
    assert fb.predict(str(tmp_path / "codes"), str(tmp_path / "labels"), str(model)).failed == 1
    (photos / "red" / "0000.png").write_bytes(whole)
    os.utime(photos / "red" / "0000.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.rmtree(tmp_path / "codes")
    fb.encode(str(photos), str(tmp_path / "codes"), NULL)
    assert fb.predict(str(tmp_path / "codes"), str(tmp_path / "labels"), str(model)).failed == 0


def test_codes_of_a_foreign_shard_are_never_labelled(encoded, model, tmp_path):
    codes = shutil.copytree(encoded, tmp_path / "codes")
    shutil.copy(codes / "codes" / "shard-000000.parquet", codes / "codes" / "shard-000001.parquet")
    with pytest.raises(fb.InputError, match="no longer complete"):
        fb.predict(str(codes), str(tmp_path / "labels"), str(model))


@pytest.mark.slow
def test_run_killed_before_its_first_shard_resumes(archive, tmp_path):
    photos = shutil.copytree(archive, tmp_path / "photos")
    fb.encode(str(photos), str(tmp_path / "codes"), NULL)
    for name in ("job.json", "_SUCCESS"):
        (tmp_path / "codes" / name).unlink()
    shutil.rmtree(tmp_path / "codes" / "codes")
    shutil.copy(photos / "red" / "0000.png", photos / "red" / "new.png")
    assert fb.encode(str(photos), str(tmp_path / "codes"), NULL).images == 30


def test_model_of_other_codes_is_refused(archive, model, tmp_path):
    fb.encode(str(archive), str(tmp_path / "codes"), fb.EncodeConfig(network="null", code_dtype="float32"))
    with pytest.raises(fb.InputError, match=r"code_dtype \(float16, not float32\)"):
        fb.predict(str(tmp_path / "codes"), str(tmp_path / "labels"), str(model))


def test_csv_has_a_line_per_image(encoded, model, tmp_path):
    fb.predict(str(encoded), str(tmp_path / "labels"), str(model), csv=str(tmp_path / "labels.csv"))
    lines = (tmp_path / "labels.csv").read_text("utf-8-sig").splitlines()
    assert lines[0] == "path,prediction,probability,is_unknown,status,reason,message"
    assert len(lines) == 31


def test_predictions_are_never_written_into_codes_folders(archive, encoded, model, tmp_path):
    fb.predict(str(encoded), str(tmp_path / "labels"), str(model))
    with pytest.raises(fb.InputError, match="holds predictions"):
        fb.encode(str(archive), str(tmp_path / "labels"), NULL)
    with pytest.raises(fb.InputError, match="holds codes"):
        fb.predict(str(archive), str(encoded), str(model))


def test_second_driver_is_refused_while_the_first_runs(archive, encoded):
    from flowers_batch.storage.opening import open_folder

    with open_folder(str(encoded)).locked(), pytest.raises(fb.InputError, match=f"process {os.getpid()}"):
        fb.encode(str(archive), str(encoded), NULL)


DRIVER = """
import sys
import flowers_batch as fb
fb.encode(sys.argv[1], sys.argv[2], fb.EncodeConfig(network="null", shard_size=2, batch_size=2))
"""


def kill_a_driver_and_continue(photos: Path, folder: Path) -> fb.Summary:
    """Kills a driver after some shards, calls it again, and sees that what was done stays as it was."""
    codes = folder / "codes"
    first = subprocess.Popen([sys.executable, "-c", DRIVER, str(photos), str(folder)])
    while len(files(codes)) < 5:
        assert first.poll() is None, "the driver ended before it could be killed"
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(2)  # its actors end on their own
    finished = files(codes)
    assert not (folder / "_SUCCESS").exists()
    assert not fb.verify(str(folder)).is_complete
    summary = fb.encode(str(photos), str(folder), fb.EncodeConfig(network="null", shard_size=2))
    assert 5 <= len(finished) < summary.shards
    assert summary.resumed == 2 * len(finished)
    assert {name: files(codes)[name] for name in finished} == finished
    assert fb.verify(str(folder)).is_complete
    assert not list(folder.rglob("_tmp-*"))
    return summary


@pytest.mark.faults
def test_killed_shrinking_is_resumed_and_its_pixels_are_encoded(tmp_path):
    photos, pixels, codes = draw_archive(tmp_path / "photos", 30), tmp_path / "pixels", tmp_path / "codes"
    script = "import sys, flowers_batch as fb; fb.shrink(*sys.argv[1:], fb.ShrinkConfig(shard_size=2))"
    driver = subprocess.Popen([sys.executable, "-c", script, str(photos), str(pixels)])
    while len(files(pixels / "pixels")) < 5:
        assert driver.poll() is None, "the driver ended before it could be killed"
        time.sleep(0.005)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(2)  # its actors end on their own
    finished = files(pixels / "pixels")
    summary = fb.shrink(photos, pixels, fb.ShrinkConfig(shard_size=2))
    assert summary.resumed == 2 * len(finished) < summary.images == 90
    assert finished.items() <= files(pixels / "pixels").items() and fb.verify(pixels, deep=True).problems == []
    rounded = replace(NULL, uint8_pixels=True, decode="fast")
    fb.encode(pixels, codes, NULL)
    fb.encode(photos, tmp_path / "reference", rounded)
    assert rows(codes, "codes", "path", "code") == rows(tmp_path / "reference", "codes", "path", "code")


@pytest.mark.faults
def test_killed_driver_loses_no_finished_shard(tmp_path):
    summary = kill_a_driver_and_continue(draw_archive(tmp_path / "photos", 100), tmp_path / "codes")
    paths = [row["path"] for row in rows(tmp_path / "codes", "codes", "path")]
    assert len(set(paths)) == len(paths) == summary.images == 300


GPUS = """
import json, sys, time
from pathlib import Path
import ray
import flowers_batch as fb
from flowers_batch.encoding.factories import EncoderFactory
from flowers_batch.runs import encode as encode_module

class Patient(EncoderFactory):
    '''Its workers wait for each other before the first shard, and take a while over each.'''

    def __call__(self, threads, gpu, progress):
        worker = super().__call__(threads, gpu, progress)
        meeting = Path(MEETING)
        (meeting / ray.get_runtime_context().get_actor_id()).write_text(str(threads))
        while len(list(meeting.iterdir())) < 2:
            time.sleep(0.05)
        batches = worker.batches
        worker.batches = lambda *arguments: (time.sleep(0.3), batches(*arguments))[1]
        return worker

encode_module.EncoderFactory = Patient
ray.init(address="local", num_cpus=6, num_gpus=2, include_dashboard=False, log_to_driver=False)
config = fb.EncodeConfig(network="null", shard_size=4)
print(json.dumps(fb.encode(sys.argv[1], sys.argv[2], config).actors))
"""


@pytest.mark.slow
def test_actors_get_one_gpu_each_and_half_of_the_cores(archive, tmp_path):
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    script = GPUS.replace("MEETING", repr(str(meeting)))
    command = [sys.executable, "-c", script, str(archive), str(tmp_path / "codes")]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120).stdout
    assert sorted(gpus for _, gpus in json.loads(printed)) == [["0"], ["1"]]
    assert [actor.read_text() for actor in meeting.iterdir()] == ["3", "3"]


@pytest.mark.slow
def test_vgg16_from_photos_to_labels(tmp_path):
    """All convolutions of VGG16, with random weights: its codes are the reference's, and its labels are the codes'."""
    archive = draw_archive(tmp_path / "photos", 4)
    settings = {"layer": "pool5", "pool": "avg", "precision": "float32", "code_dtype": "float32"}
    fb.encode(archive, tmp_path / "codes", fb.EncodeConfig(weights="random:0", shard_size=8, **settings))
    fb.train(tmp_path / "codes", tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    fb.predict(str(archive), str(tmp_path / "labels"), str(tmp_path / "model"))
    fb.predict(str(tmp_path / "codes"), str(tmp_path / "same"), str(tmp_path / "model"))
    columns = ("path", "prediction")
    labels = rows(tmp_path / "labels", "predictions", *columns)
    assert labels == rows(tmp_path / "same", "predictions", *columns)
    assert sum(row["path"].startswith(row["prediction"]) for row in labels) >= 0.9 * len(labels) > 0

    from tensorflow_vgg import images, network, weights

    reference = network.build("vgg16", "pool5", weights.load(weights.find("random:0"), "vgg16", "pool5"), pool="avg")
    batch = next(open_run(str(tmp_path / "codes"), "codes").batches(["path", "code"]))
    paths = batch["path"].to_pylist()[:2]
    pixels = np.stack([images.load_image(archive / path) * 255 for path in paths]).astype(np.float32)
    expected = reference.predict_on_batch(pixels)
    received = codes_of(batch)[0][:2]
    assert np.linalg.norm(received - expected, axis=1).max() / np.linalg.norm(expected, axis=1).min() < 1e-4


def test_real_photos_are_all_read(real_photos, tmp_path):
    summary = fb.encode(real_photos, tmp_path / "codes", fb.EncodeConfig(network="null", shard_size=64))
    assert summary.images == summary.ok == len(list(real_photos.rglob("*.jpg")))
    assert fb.verify(tmp_path / "codes").is_complete


@pytest.mark.faults
@pytest.mark.nightly
def test_real_photos_are_kept_through_a_kill(real_photos, tmp_path):
    kill_a_driver_and_continue(real_photos, tmp_path / "codes")


@pytest.mark.nightly
def test_real_photos_are_labelled_far_better_than_by_chance(real_photos, tmp_path):
    fb.encode(str(real_photos), str(tmp_path / "codes"), fb.EncodeConfig(weights="random:0", shard_size=64))
    accuracies = [
        fb.train(str(tmp_path / "codes"), str(tmp_path / "model"), fb.TrainConfig(("folder",), seed=seed))["test"][
            "accuracy"
        ]
        for seed in range(3)
    ]
    classes = len([entry for entry in real_photos.iterdir() if entry.is_dir()])
    assert np.mean(accuracies) > 1.4 / classes
    fb.predict(str(tmp_path / "codes"), str(tmp_path / "labels"), str(tmp_path / "model"))
    assert fb.verify(str(tmp_path / "labels")).is_complete


def test_stored_size_is_what_the_format_promises(encoded):
    metadata = pq.read_metadata(encoded / "codes" / "shard-000000.parquet")
    assert metadata.num_row_groups == 1
    column = metadata.row_group(0).column(metadata.num_columns - 1)
    assert column.path_in_schema == "code.list.element"
    assert "BYTE_STREAM_SPLIT" in column.encodings
    assert column.compression == "ZSTD"


def test_mixed_formats_and_nested_folders_are_all_encoded(tmp_path):
    folder = tmp_path / "photos" / "a" / "b" / "c d"
    folder.mkdir(parents=True)
    picture = Image.fromarray(np.full((40, 50, 3), 90, np.uint8))
    names = ["x.jpg", "x.JPEG", "x.png", "x.bmp", "x.gif", "x.webp", "x.tiff", "x.avif"]
    for name in names:
        picture.save(folder / name)
    summary = fb.encode(str(tmp_path / "photos"), str(tmp_path / "codes"), NULL)
    assert (summary.ok, summary.failed) == (len(names), 0)
    assert {row["folder"] for row in rows(tmp_path / "codes", "codes", "folder")} == {"c d"}


@pytest.mark.nightly
def test_imagenets_own_classes_need_no_training(archive, tmp_path, monkeypatch):
    """With random weights, which say nothing; the names come from the published index, else they are numbers."""
    from tensorflow_vgg import download, imagenet

    def unreachable(file):
        raise download.DownloadError("offline")

    few = tmp_path / "photos"
    few.mkdir()
    for path in sorted((archive / "red").iterdir())[:3]:
        shutil.copy(path, few)
    monkeypatch.setattr(imagenet, "fetch", unreachable)
    summary = fb.predict(few, tmp_path / "labels", "imagenet", fb.PredictConfig(weights="random:0"))
    assert "numbered" in summary.notes[0]
    labels = rows(tmp_path / "labels", "predictions", "prediction", "top_labels", "top_probabilities")
    assert len(labels) == 3
    for row in labels:
        assert row["prediction"].startswith("class ") and len(set(row["top_labels"])) == 5
        assert row["top_probabilities"] == sorted(row["top_probabilities"], reverse=True)
    assert fb.verify(tmp_path / "labels").is_complete
    page = Path(fb.report(tmp_path / "labels")).read_text()
    assert "ImageNet&#39;s 1000 classes" in page and "numbered" in page
    again = fb.predict(few, tmp_path / "labels", "imagenet", fb.PredictConfig(weights="random:0"))
    assert again.resumed == 3


def codes_by_path(folder: Path) -> dict[str, list[float] | None]:
    return {row["path"]: row["code"] for row in rows(folder, "codes", "path", "code")}


def grown(photos: Path) -> None:
    """Changes a photo, takes one away, and adds two."""
    (photos / "blue" / "0003.png").unlink()
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(photos / "green" / "0001.png")
    for name in ("aaa.png", "red/new.png"):
        shutil.copy(photos / "red" / "0000.png", photos / name)


def test_only_new_and_changed_photos_of_a_grown_archive_are_encoded(tmp_path):
    photos = draw_archive(tmp_path / "photos", 8)
    fb.encode(photos, tmp_path / "codes", NULL)
    before, written = codes_by_path(tmp_path / "codes"), files(tmp_path / "codes" / "codes")
    grown(photos)
    summary = fb.encode(photos, tmp_path / "codes", NULL)
    assert (summary.images, summary.missing, summary.resumed, summary.duplicates) == (26, 1, 23, 2)
    assert {name: count for name, count in summary.changes.items() if count} == {"new": 2, "changed": 1, "missing": 1}
    after, rewritten = codes_by_path(tmp_path / "codes"), files(tmp_path / "codes" / "codes")
    assert after.keys() == before.keys() | {"aaa.png", "red/new.png"}
    assert {path for path in before if before[path] != after[path]} == {"green/0001.png"}
    same = sorted(name for name in written if rewritten[name] == written[name])
    assert same == ["shard-000000.parquet", "shard-000002.parquet"] and len(rewritten) == 4
    assert fb.verify(tmp_path / "codes").is_complete
    shutil.rmtree(tmp_path / "codes")
    fb.encode(photos, tmp_path / "codes", NULL)
    encoded_again = codes_by_path(tmp_path / "codes")
    assert encoded_again == {path: code for path, code in after.items() if path != "blue/0003.png"}


def test_pruned_photos_lose_their_rows(tmp_path):
    photos = draw_archive(tmp_path / "photos", 4)
    fb.encode(photos, tmp_path / "codes", NULL)
    (photos / "blue" / "0003.png").unlink()
    shutil.rmtree(photos / "red")
    assert fb.encode(photos, tmp_path / "codes", NULL).missing == 5
    summary = fb.encode(photos, tmp_path / "codes", replace(NULL, prune=True))
    assert (summary.images, summary.missing, summary.changes["pruned"]) == (7, 0, 5)
    assert not [path for path in codes_by_path(tmp_path / "codes") if "red" in path]
    assert fb.verify(tmp_path / "codes").is_complete


@pytest.mark.slow
def test_only_rows_with_retryable_reasons_are_retried(tmp_path):
    photos = draw_archive(tmp_path / "photos", 4)
    (photos / "red" / "0000.png").write_bytes(b"never a picture")
    target = tmp_path / "elsewhere"
    target.mkdir()
    shutil.copy(photos / "red" / "0001.png", target / "x.png")
    (photos / "red" / "link.png").symlink_to(target / "x.png")
    target.rename(tmp_path / "unplugged")
    times = (photos / "red" / "link.png").lstat()
    assert fb.encode(photos, tmp_path / "codes", NULL).reasons == {"missing": 1, "not_an_image": 1}
    before = files(tmp_path / "codes" / "codes")
    again = fb.encode(photos, tmp_path / "codes", replace(NULL, retry_failed=True))
    assert (again.changes["retried"], again.resumed, again.failed) == (1, 12, 2)
    after = files(tmp_path / "codes" / "codes")
    assert [name for name in before if before[name] != after[name]] == ["shard-000001.parquet"]
    (tmp_path / "unplugged").rename(target)
    assert (photos / "red" / "link.png").lstat() == times
    summary = fb.encode(photos, tmp_path / "codes", replace(NULL, retry_failed=True))
    assert summary.reasons == {"not_an_image": 1}
    assert fb.verify(tmp_path / "codes").is_complete


def test_retrying_all_takes_what_a_newer_version_decodes(tmp_path):
    photos = draw_archive(tmp_path / "photos", 4)
    photo = photos / "red" / "0000.png"
    picture = photo.read_bytes()
    photo.write_bytes(picture[:20].ljust(len(picture), b"\0"))
    listed = photo.stat()
    assert fb.encode(photos, tmp_path / "codes", NULL).reasons == {"truncated": 1}
    # To the listing it is the same file, as it is to a newer version; and now it is decoded.
    photo.write_bytes(picture)
    os.utime(photo, ns=(listed.st_atime_ns, listed.st_mtime_ns))
    assert fb.encode(photos, tmp_path / "codes", replace(NULL, retry_failed=True)).reasons == {"truncated": 1}
    summary = fb.encode(photos, tmp_path / "codes", replace(NULL, retry_all=True))
    assert (summary.changes["retried"], summary.failed) == (1, 0)
    assert fb.verify(tmp_path / "codes").is_complete


@pytest.mark.slow
def test_labels_follow_codes_that_grew(model, tmp_path):
    photos = draw_archive(tmp_path / "photos", 8)
    fb.encode(photos, tmp_path / "codes", NULL)
    fb.predict(tmp_path / "codes", tmp_path / "labels", model)
    fb.predict(photos, tmp_path / "direct", model, fb.PredictConfig(shard_size=8))
    grown(photos)
    fb.encode(photos, tmp_path / "codes", NULL)
    # Labels of codes are rewritten by the shard, since that is quick; labels of photos by the photo.
    assert fb.predict(tmp_path / "codes", tmp_path / "labels", model).resumed == 16
    assert fb.predict(photos, tmp_path / "direct", model, fb.PredictConfig(shard_size=8)).resumed == 23
    columns = ("path", "prediction", "sha256")
    assert rows(tmp_path / "labels", "predictions", *columns) == rows(tmp_path / "direct", "predictions", *columns)
    for name in ("labels", "direct"):
        assert fb.verify(tmp_path / name).is_complete


@pytest.mark.faults
def test_driver_killed_while_it_rewrites_shards_loses_nothing(tmp_path):
    """Shards that were not rewritten yet reuse rows of the generation that their file has."""
    photos = draw_archive(tmp_path / "photos", 8)
    fb.encode(photos, tmp_path / "codes", NULL)
    old = {path.name: path.read_bytes() for path in (tmp_path / "codes" / "codes").iterdir()}
    grown(photos)
    fb.encode(photos, tmp_path / "codes", NULL)
    expected = codes_by_path(tmp_path / "codes")
    (tmp_path / "codes" / "codes" / "shard-000001.parquet").write_bytes(old["shard-000001.parquet"])
    (tmp_path / "codes" / "_SUCCESS").unlink()
    summary = fb.encode(photos, tmp_path / "codes", NULL)
    assert (summary.resumed, summary.changes) == (25, {})
    assert codes_by_path(tmp_path / "codes") == expected


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB, and a way to make it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(disk), "-o"]
    if os.getuid() or subprocess.run([*mount, "size=400k"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("only root may mount a small disk to fill")
    yield disk, lambda: subprocess.run([*mount, "remount,size=100m"], check=True)
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.faults
def test_full_disk_ends_the_run_and_space_lets_it_resume(tmp_path, small_disk):
    disk, enlarge = small_disk
    photos = draw_archive(tmp_path / "photos", 100)  # 1.5 kB a code
    with pytest.raises(fb.RunError, match=r"shard-\d+\.parquet cannot be written \(No space left on device\)"):
        fb.encode(photos, disk / "codes", NULL)
    assert not (disk / "codes" / "_SUCCESS").exists()
    done = files(disk / "codes" / "codes")
    enlarge()
    # The other actor may have finished a shard meanwhile.
    assert fb.encode(photos, disk / "codes", NULL).resumed >= 8 * len(done) > 0
    assert {name: files(disk / "codes" / "codes")[name] for name in done} == done
    assert fb.verify(disk / "codes").is_complete
    assert not list(disk.rglob("_tmp-*"))  # that the other actor left, when it was stopped while it wrote


@pytest.mark.faults
def test_output_folder_that_disappears_ends_the_run(tmp_path):
    photos = draw_archive(tmp_path / "photos", 40)
    codes = tmp_path / "codes" / "codes"

    def take_away():
        while not files(codes):
            time.sleep(0.005)
        (tmp_path / "codes").rename(tmp_path / "unplugged")

    thief = threading.Thread(target=take_away)
    thief.start()
    with pytest.raises((fb.RunError, OSError)):
        fb.encode(photos, tmp_path / "codes", replace(NULL, shard_size=1))
    thief.join()
    shutil.rmtree(tmp_path / "codes", ignore_errors=True)
    (tmp_path / "unplugged").rename(tmp_path / "codes")
    assert fb.encode(photos, tmp_path / "codes", replace(NULL, shard_size=1)).images == 120
    assert fb.verify(tmp_path / "codes").is_complete


@pytest.mark.slow
def test_labels_follow_codes_that_changed_without_a_listing(model, tmp_path):
    photos = draw_archive(tmp_path / "photos", 4)
    paths = sorted(photos.rglob("*.png"))
    listing = tmp_path / "list.csv"
    listing.write_text("path,bytes,mtime\n" + "".join(f"{path},1000,2024-05-01T12:00:00\n" for path in paths))
    fb.encode(listing, tmp_path / "codes", NULL)
    fb.predict(tmp_path / "codes", tmp_path / "labels", model)
    draw_archive(photos, 4, seed=9)
    shutil.rmtree(tmp_path / "codes")
    fb.encode(listing, tmp_path / "codes", NULL)
    assert fb.predict(tmp_path / "codes", tmp_path / "labels", model).resumed == 0
    assert rows(tmp_path / "codes", "codes", "sha256") == rows(tmp_path / "labels", "predictions", "sha256")


def test_options_for_photos_are_refused_for_codes(encoded, model, tmp_path):
    switches = ({"prune": True}, {"retry_failed": True}, {"retry_all": True})
    for option in (*switches, {"max_pixels": 5}, {"image_timeout": 5.0}, {"max_failed_share": 1.0}):
        with pytest.raises(fb.InputError, match="no photo is listed or read"):
            fb.predict(encoded, tmp_path / "labels", model, fb.PredictConfig(**option))


def test_links_to_an_unmounted_disk_keep_their_rows(tmp_path):
    photos = draw_archive(tmp_path / "disk", 3)
    (tmp_path / "links").mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        (tmp_path / "links" / f"{number}.png").symlink_to(path)
    fb.encode(tmp_path / "links", tmp_path / "codes", NULL)
    before = codes_by_path(tmp_path / "codes")
    photos.rename(tmp_path / "unplugged")
    with pytest.raises(fb.InputError, match="There are no images"):
        fb.encode(tmp_path / "links", tmp_path / "codes", NULL)
    shutil.copytree(tmp_path / "unplugged" / "red", photos / "red")
    assert fb.encode(tmp_path / "links", tmp_path / "codes", NULL).missing == 6
    assert codes_by_path(tmp_path / "codes") == before
