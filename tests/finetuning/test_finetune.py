"""Fine-tuning from photos to a model folder, with narrow networks in this process; one run uses Ray."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import assert_parameters_equal, descendants, draw_archive, narrowing, run_shards_here
from safetensors.numpy import load_file
from thread_pool import decoding_in_threads

import flowers_batch as fb
from flowers_batch.classifier.model_folder import NETWORK, load_model, read_metrics
from flowers_batch.cli.metrics_rendering import training_text
from flowers_batch.dataset.job import read_job
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES, codes_of
from flowers_batch.encoding.weights import convert_weights
from flowers_batch.errors import InputError
from flowers_batch.finetuning import finetune
from flowers_batch.finetuning.comparison import verdict
from flowers_batch.finetuning.frozen import encoding_settings_of, open_frozen_codes
from flowers_batch.progress import NULL_REPORTER
from flowers_batch.storage.opening import open_folder

CONFIG = fb.FinetuneConfig(
    encode=fb.EncodeConfig(weights="random:3", precision="float32"),
    train=fb.TrainConfig(("folder",)),
    unfreeze="all",
    epochs=2,
    batch_size=16,
    lr_multiplier=0.2,
    augment=("flip",),
)


@pytest.fixture(scope="module")
def here(thin):
    """Narrow networks, and neither Ray nor other processes."""
    with pytest.MonkeyPatch.context() as patch, decoding_in_threads():
        patch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
        for module in ("flowers_batch.finetuning.finetune", "flowers_batch.runs.verify"):
            patch.setattr(f"{module}.run_on_one_actor", lambda job, cluster, reporter: job(2, 0, reporter))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Photos of which some have a wrong label, so that no head is perfect before the fine-tuning."""
    folder = draw_archive(tmp_path_factory.mktemp("photos"), 16)
    for number in range(0, 16, 3):
        red, green = (folder / kind / f"{number:04d}.png" for kind in ("red", "green"))
        red_bytes, green_bytes = red.read_bytes(), green.read_bytes()
        red.write_bytes(green_bytes)
        green.write_bytes(red_bytes)
    return folder


@pytest.fixture(scope="module")
def tuned(here, photos, tmp_path_factory) -> Path:
    """A model folder, of a network that is no longer the one that training began with."""
    model = tmp_path_factory.mktemp("tuned") / "model"
    metrics = fb.finetune(photos, model, CONFIG)
    assert metrics["tuning"]["best_epoch"] > 0, "the tests below want another network than before"
    return model


def parameters(path: Path):
    from tensorflow_vgg import weights

    return list(weights.load(weights.Weights(str(path), path), "vgg16", "relu6"))


def codes_in(folder: Path) -> np.ndarray:
    return np.concatenate([codes_of(batch)[0] for batch in open_run(str(folder), CODES).batches(["code"])])


def labels_in(folder: Path) -> dict[str, tuple[str, float]]:
    rows = pq.read_table(folder / "predictions").to_pylist()
    return {row["path"]: (row["prediction"], round(row["probability"], 4)) for row in rows}


def splits_in(model: Path) -> dict[str, str]:
    """Return each labelled photo's split, as the classifier on frozen codes has it."""
    rows = pq.read_table(model / "frozen" / "model" / "split.parquet", columns=["path", "split"]).to_pylist()
    return {row["path"]: row["split"] for row in rows}


def test_model_folder_describes_the_fine_tuning(tuned):
    metrics = json.loads((tuned / "metrics.json").read_text())
    model = load_model(str(tuned))
    assert model.weights == str(tuned / NETWORK) and model.codes == str(tuned / "codes")
    assert model.fingerprint == open_run(model.codes, CODES).job.fingerprint
    frozen = load_model(str(tuned / "frozen" / "model"))
    assert model.fingerprint.weights != frozen.fingerprint.weights
    tuning = metrics["tuning"]
    before = json.loads((tuned / "frozen/model/metrics.json").read_text())["test"]
    assert tuning["minutes"] > tuning["frozen"]["minutes"] > 0
    assert 0 < tuning["stage_shares"]["network"] < sum(tuning["stage_shares"].values()) < 1
    assert [epoch["epoch"] for epoch in tuning["epochs"]] == [0, 1, 2]
    compared = tuning["comparison"]
    assert compared["photos"] == metrics["photos"]["test"] == metrics["test"]["photos"]
    for name, evaluated in (("before", before), ("after", metrics["test"])):
        assert compared[name]["accuracy"] == evaluated["accuracy"]
    assert compared["gain"] == pytest.approx(metrics["test"]["accuracy"] - before["accuracy"])
    assert not (tuned / "epochs").exists()  # hundreds of megabytes that nothing needs any more


def test_all_commands_take_a_fine_tuned_model(tuned, photos, tmp_path):
    fb.predict(str(photos), str(tmp_path / "from photos"), str(tuned))
    fb.predict(str(tuned / "codes"), str(tmp_path / "from codes"), str(tuned))
    assert labels_in(tmp_path / "from photos") == labels_in(tmp_path / "from codes")
    assert fb.verify(str(tmp_path / "from photos"), deep=True).is_complete
    page = Path(fb.report(str(tmp_path / "from photos"))).read_text()
    assert "Effect of fine-tuning" in page and "from random weights (random:3)" in page
    assert "would more labels help" not in page
    encoding = replace(CONFIG.encode, weights=str(tuned / NETWORK))
    fb.encode(str(photos), str(tmp_path / "codes"), encoding)
    np.testing.assert_array_equal(codes_in(tmp_path / "codes"), codes_in(tuned / "codes"))
    found = fb.label_issues(str(tuned))
    assert all({"path", "label", "suggested"} <= row.keys() for row in found)


def test_exported_model_labels_like_the_model_folder(tuned, photos, tmp_path):
    import keras

    from flowers_batch.decoding.decode import decode

    exported = keras.models.load_model(fb.export(str(tuned), str(tmp_path / "flowers.keras"), "keras"))
    paths = sorted(path for path in photos.rglob("*.png"))[::6]
    given = exported.predict_on_batch(np.stack([decode(path.read_bytes()).pixels for path in paths]))
    fb.predict(str(photos), str(tmp_path / "labels"), str(tuned))
    expected = labels_in(tmp_path / "labels")
    names = [str(path.relative_to(photos)) for path in paths]
    np.testing.assert_allclose(given["probability"], [expected[name][1] for name in names], atol=2e-2)


def test_review_offers_a_training_on_the_fine_tuned_codes(tuned, tmp_path):
    from flowers_batch.pages.review.review import Review

    fb.predict(str(tuned / "codes"), str(tmp_path / "labels"), str(tuned))
    review = Review(str(tmp_path / "labels"), str(tmp_path / "mine.csv"))
    assert review.training.plan.commands()[0].split()[:3] == ["flowers-batch", "train", str(tuned / "codes")]


def test_model_folder_may_be_moved(tuned, photos, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(tuned, moved)
    shutil.move(tuned / NETWORK, tuned / "away")
    try:
        fb.predict(str(photos), str(tmp_path / "labels"), str(moved))
    finally:
        shutil.move(tuned / "away", tuned / NETWORK)
    assert (tmp_path / "labels" / "_SUCCESS").exists()


def test_finished_fine_tuning_is_not_repeated(tuned, photos, monkeypatch):
    monkeypatch.setattr(finetune, "run_on_one_actor", lambda *_: pytest.fail("nothing was left to do"))
    before = read_metrics(open_folder(tuned))
    assert fb.finetune(photos, tuned, CONFIG) == before


def test_other_settings_for_the_same_folder_are_refused(tuned, photos):
    other = replace(CONFIG, unfreeze="fc", train=fb.TrainConfig(("folder",), seed=1))
    with pytest.raises(InputError, match="holds a fine-tuning that differs in: seed, unfreeze; choose another folder"):
        fb.finetune(photos, tuned, other)


def test_same_folder_with_other_photos_or_weights_is_refused(tuned, photos, tmp_path):
    with pytest.raises(InputError, match=r"was started with other photos, those of .*photos"):
        fb.finetune(draw_archive(tmp_path / "other", 3), tuned, CONFIG)
    other = replace(CONFIG, encode=replace(CONFIG.encode, weights="random:4"))
    with pytest.raises(InputError, match=r"differ in weights \(random:4, not random:3\): choose another folder"):
        fb.finetune(photos, tuned, other)
    convert_weights("random:3", str(tmp_path / "moved.npy"), "float32")
    moved = replace(CONFIG, encode=replace(CONFIG.encode, weights=str(tmp_path / "moved.npy")))
    run = open_frozen_codes(photos, open_folder(tuned), moved, NULL_REPORTER)
    assert run.job.weights == str(tmp_path / "moved.npy"), "the same weights may lie elsewhere when it goes on"


def test_folder_of_an_ordinary_model_is_refused(tuned, photos):
    with pytest.raises(InputError, match="holds a model that was not fine-tuned: choose another folder"):
        fb.finetune(tuned / "frozen" / "codes", tuned / "frozen" / "model", CONFIG)


def test_training_on_fine_tuned_codes_omits_flattering_figures(tuned, photos, tmp_path):
    """The network has seen the labels of all photos that it was trained on, whatever part of them a head is given."""
    shutil.copytree(tuned, tmp_path / "tuned")
    metrics = fb.train(tuned / "codes", tmp_path / "tuned", fb.TrainConfig(("folder",)))
    assert [point["share"] for point in metrics["learning_curve"]] == [1.0]
    assert "would more labels help" not in training_text(metrics, "model")
    with pytest.raises(InputError, match="holds a model that was not fine-tuned: choose another folder"):
        fb.finetune(photos, tmp_path / "tuned", CONFIG)


def test_name_of_a_weights_file_decides_nothing(tuned, photos, tmp_path):
    """A copy of fine-tuned weights is fine-tuned whatever its name, also in another format; a namesake is not."""
    shutil.copy(tuned / NETWORK, tmp_path / "copy.safetensors")
    convert_weights(str(tuned / NETWORK), str(tmp_path / "converted.h5"), "float32")
    convert_weights("random:3", str(tmp_path / NETWORK), "float32")
    for name, is_tuned in (("copy.safetensors", True), ("converted.h5", True), (NETWORK, False)):
        codes, model = tmp_path / f"codes of {name}", tmp_path / f"model of {name}"
        fb.encode(photos, codes, replace(CONFIG.encode, weights=str(tmp_path / name)))
        assert bool(read_job(open_folder(codes)).tuned_on) == is_tuned, name
        metrics = fb.train(codes, model, fb.TrainConfig(("folder",), head="logistic"))
        assert (len(metrics["learning_curve"]) == 1) == is_tuned, name


@pytest.mark.slow
def test_codes_name_the_photos_that_their_network_was_tuned_on(tuned, photos, tmp_path):
    """Of a network that was fine-tuned twice, both times."""
    splits = splits_in(tuned)
    rows = pq.read_table(tuned / "split.parquet", columns=["path", "sha256"]).to_pylist()
    digests = sorted(row["sha256"] for row in rows if splits[row["path"]] != "test")
    (first,) = read_job(open_folder(tuned / "codes")).tuned_on
    identity = hashlib.sha256(b"".join(digests)).hexdigest()
    assert first == {"images": str(photos), "photos": len(digests), "sha256": identity}
    assert read_job(open_folder(tuned / "frozen" / "codes")).tuned_on == ()
    again = replace(CONFIG, encode=replace(CONFIG.encode, weights=str(tuned / NETWORK)), lr_multiplier=5.0)
    metrics = fb.finetune(photos, tmp_path / "again", again)
    assert read_job(open_folder(tmp_path / "again" / "frozen" / "codes")).tuned_on == (first,)
    if metrics["tuning"]["best_epoch"]:
        assert read_job(open_folder(tmp_path / "again" / "codes")).tuned_on == (first, first)


def test_codes_folder_stands_for_its_photos_and_network(tuned, tmp_path):
    codes = tuned / "frozen" / "codes"
    for change, told in (
        (
            {"weights": "random:4"},
            r"differ in weights \(random:4, not random:3\): leave that out, or encode the photos again",
        ),
        ({"layer": "relu7"}, r"differ in layer \(relu7, not relu6\)"),
        ({"network": "vgg19"}, r"differ in network \(vgg19, not vgg16\)"),
        ({"root": "/elsewhere"}, "contains the `root` of its photos: leave `root` out"),
        ({"exclude": ("raw",)}, "has listed its photos: leave `include_hidden` and `exclude` out"),
    ):
        asked = fb.EncodeConfig(**encoding_settings_of(codes, change))
        with pytest.raises(InputError, match=told):
            fb.finetune(codes, tmp_path / "other", replace(CONFIG, encode=asked))
    convert_weights("random:3", str(tmp_path / "moved.npy"), "float32")
    moved = replace(CONFIG, encode=replace(CONFIG.encode, weights=str(tmp_path / "moved.npy")))
    run = open_frozen_codes(codes, open_folder(tmp_path / "model"), moved, NULL_REPORTER)
    assert run.job.weights == str(tmp_path / "moved.npy")
    small = replace(CONFIG, encode=replace(CONFIG.encode, max_pixels=5000))
    assert finetune.encoding_config(run, small, "random:3").max_pixels == 5000, "what is too large stays so"
    metrics = fb.finetune(codes, tmp_path / "model", replace(CONFIG, encode=None))
    expected = read_metrics(open_folder(tuned))
    assert metrics["test"] == expected["test"]
    assert_parameters_equal(parameters(tmp_path / "model" / NETWORK), parameters(tuned / NETWORK))


def test_training_gets_no_test_photos(tuned, photos, tmp_path, monkeypatch):
    given = {}

    def catch(job, cluster, reporter):
        given["photos"], given["trained"] = job.photos.images["path"].to_pylist(), job.photos.is_training
        raise InputError("caught")

    monkeypatch.setattr(finetune, "run_on_one_actor", catch)
    with pytest.raises(InputError, match="caught"):
        fb.finetune(tuned / "frozen" / "codes", tmp_path / "model", replace(CONFIG, encode=None))
    split = splits_in(tuned)
    splits = [split[path] for path in given["photos"]]
    assert set(splits) == {"train", "validation"} and len(splits) + list(split.values()).count("test") == len(split)
    assert [split == "train" for split in splits] == given["trained"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("at", ["encode", "evaluate_and_publish"])
def test_run_that_ends_between_two_steps_is_resumed(tuned, tmp_path, monkeypatch, at):
    codes, asked = tuned / "frozen" / "codes", replace(CONFIG, encode=None)

    def end(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune, at, end)
        with pytest.raises(KeyboardInterrupt):
            fb.finetune(codes, tmp_path / "model", asked)
    assert not (tmp_path / "model" / "model.json").exists()
    metrics = fb.finetune(codes, tmp_path / "model", asked)
    assert metrics["test"] == json.loads((tuned / "metrics.json").read_text())["test"]
    assert fb.verify(str(tmp_path / "model" / "codes")).is_complete


@pytest.mark.slow
def test_all_folders_may_be_in_an_object_store(here, photos, tuned, s3, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = s3.url("tuned")
    metrics = fb.finetune(s3.upload(photos, "tuned-on"), model, CONFIG)
    assert metrics["test"] == json.loads((tuned / "metrics.json").read_text())["test"]
    assert load_model(model).weights == s3.url("tuned/network.safetensors")
    assert not open_folder(model).names("epochs")
    fb.predict(str(photos), str(tmp_path / "labels"), model)


@pytest.mark.slow
def test_labels_that_change_meanwhile_change_no_split(tuned, photos, tmp_path, monkeypatch):
    """Sides are decided once: no photo that was trained on may judge."""
    labels = tmp_path / "labels.csv"
    paths = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    rows = [f"{path},{path.split('/')[0]}" for path in paths]
    labels.write_text("\n".join(["path,label", *rows[::2]]))
    config = replace(CONFIG, encode=None, train=fb.TrainConfig(labels=(str(labels),)))
    given = {}

    def train_and_change(job, cluster, reporter):
        given["trained"] = set(np.array(job.photos.images["path"].to_pylist())[job.photos.is_training])
        labels.write_text("\n".join(["path,label", *rows]))
        return job(2, 0, reporter)

    monkeypatch.setattr(finetune, "run_on_one_actor", train_and_change)
    metrics = fb.finetune(tuned / "frozen" / "codes", tmp_path / "model", config)
    split = pq.read_table(tmp_path / "model" / "split.parquet").to_pylist()
    assert {row["path"] for row in split if row["split"] == "train"} == given["trained"]
    assert metrics["tuning"]["comparison"]["photos"] == sum(row["split"] == "test" for row in split)
    assert fb.finetune(tuned / "frozen" / "codes", tmp_path / "model", config) == metrics
    other = replace(config, train=fb.TrainConfig(labels=("folder", str(labels))))
    with pytest.raises(InputError, match="holds a fine-tuning that differs in: labelled photos"):
        fb.finetune(tuned / "frozen" / "codes", tmp_path / "model", other)


@pytest.mark.slow
def test_class_of_one_photo_is_fine_tuned(here, photos, tmp_path):
    archive = tmp_path / "photos"
    shutil.copytree(photos, archive)
    (archive / "violet").mkdir()
    draw_archive(tmp_path / "other", 1, seed=5)
    shutil.copy(tmp_path / "other" / "red" / "0000.png", archive / "violet" / "0000.png")
    metrics = fb.finetune(archive, tmp_path / "model", replace(CONFIG, epochs=1))
    assert metrics["left_out_classes"]["untested"] == {"violet": 1} and "violet" in metrics["classes"]
    assert "violet/0000.png" in pq.read_table(tmp_path / "model" / "labels.parquet")["path"].to_pylist()
    assert "1 class has fewer than 3 photos" in training_text(metrics, "model")


def test_stopped_fine_tuning_needs_its_labels_files_no_more(tuned, photos, tmp_path, monkeypatch):
    labels = tmp_path / "labels.csv"
    paths = sorted(str(path.relative_to(photos)) for path in photos.rglob("*.png"))
    rows = [f"{path},{path.split('/')[0]}" for path in paths]
    labels.write_text("\n".join(["path,label", "nowhere.png,red", *rows]))
    config = replace(CONFIG, encode=None, train=fb.TrainConfig(labels=(str(labels),)))

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune, "run_on_one_actor", stop)
        fb.finetune(tuned / "frozen" / "codes", tmp_path / "model", config)
    labels.unlink()
    metrics = fb.finetune(tuned / "frozen" / "codes", tmp_path / "model", config)
    assert metrics["test"] == read_metrics(open_folder(tuned))["test"] and metrics["unknown_paths"] == 1
    assert load_model(tmp_path / "model").training["labels"] == [str(labels)]


@pytest.mark.slow
def test_missing_photos_take_no_part_and_copies_count_once(tuned, photos, tmp_path, monkeypatch):
    archive = tmp_path / "photos"
    shutil.copytree(photos, archive)
    tested = next(path for path, split in splits_in(tuned).items() if split == "test")
    for name in "abc":
        shutil.copy(archive / tested, archive / f"{tested}-{name}.png")
    fb.encode(archive, tmp_path / "codes", CONFIG.encode)
    gone = archive / "red" / "0003.png"
    gone.unlink()
    assert fb.encode(archive, tmp_path / "codes", CONFIG.encode).missing == 1
    given = []

    def listen(job, cluster, reporter):
        given.extend(job.photos.images["path"].to_pylist())
        return job(2, 0, reporter)

    monkeypatch.setattr(finetune, "run_on_one_actor", listen)
    metrics = fb.finetune(tmp_path / "codes", tmp_path / "model", replace(CONFIG, encode=None, epochs=1))
    split = splits_in(tmp_path / "model")
    assert split["red/0003.png"] != "test", "another photo is to be taken away"
    assert "red/0003.png" not in given and len(given) == len(split) - 1 - list(split.values()).count("test")
    compared = metrics["tuning"]["comparison"]
    assert compared["photos"] == metrics["test"]["photos"] - 3, "copies are right or wrong together: they count once"


def test_empty_split_is_refused_before_training(tuned, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "run_on_one_actor", lambda *_: pytest.fail("hours of work"))
    archive = tmp_path / "photos"
    shutil.copytree(photos, archive)
    fb.encode(archive, tmp_path / "codes", CONFIG.encode)
    for path, split in splits_in(tuned).items():
        if split == "validation":
            (archive / path).unlink()
    fb.encode(archive, tmp_path / "codes", CONFIG.encode)
    with pytest.raises(InputError, match=r"Too few of the labelled photos of .* still exist: restore them"):
        fb.finetune(tmp_path / "codes", tmp_path / "model", replace(CONFIG, encode=None))


@pytest.mark.slow
def test_photos_that_are_added_meanwhile_take_no_part(here, photos, tmp_path, monkeypatch):
    archive = tmp_path / "photos"
    shutil.copytree(photos, archive)

    def end(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "run_on_one_actor", end)
        with pytest.raises(KeyboardInterrupt):
            fb.finetune(archive, tmp_path / "model", CONFIG)
    shutil.copy(archive / "red" / "0000.png", archive / "red" / "new.png")
    metrics = fb.finetune(archive, tmp_path / "model", CONFIG)
    assert sum(metrics["photos"].values()) == 48


@pytest.mark.slow
def test_shrunk_photos_are_fine_tuned_like_the_photos(here, photos, tmp_path):
    rounded = replace(CONFIG.encode, uint8_pixels=True, decode="fast")
    config = replace(CONFIG, encode=rounded, epochs=1)
    fb.finetune(photos, tmp_path / "tuned", config)
    fb.shrink(photos, tmp_path / "pixels", fb.ShrinkConfig(shard_size=20))
    of_pixels = replace(config, encode=replace(CONFIG.encode, shard_size=7))
    metrics = fb.finetune(tmp_path / "pixels", tmp_path / "of pixels", of_pixels)
    assert metrics["tuning"]["epochs"][-1]["epoch"] == 1
    assert_parameters_equal(*(parameters(tmp_path / name / NETWORK) for name in ("tuned", "of pixels")))
    codes = [open_run(tmp_path / name / "codes", CODES) for name in ("tuned", "of pixels")]
    assert codes[0].job.fingerprint == codes[1].job.fingerprint
    assert fb.finetune(tmp_path / "pixels", tmp_path / "of pixels", of_pixels) == metrics
    frozen = tmp_path / "of pixels" / "frozen" / "codes"
    settings = replace(config, encode=fb.EncodeConfig(**encoding_settings_of(frozen)))
    assert open_frozen_codes(frozen, open_folder(tmp_path / "again"), settings, NULL_REPORTER).job.weights == "random:3"


def test_network_without_a_better_epoch_encodes_nothing(tuned, tmp_path, monkeypatch):
    def no_better(job, cluster, reporter):
        outcome = job(2, 0, reporter)
        return replace(outcome, state=replace(outcome.state, best=0), layer=job.head.layers[0])

    monkeypatch.setattr(finetune, "encode", lambda *_, **__: pytest.fail("the codes are there"))
    monkeypatch.setattr(finetune, "run_on_one_actor", no_better)
    codes = tuned / "frozen" / "codes"
    metrics = fb.finetune(codes, tmp_path / "model", replace(CONFIG, encode=None, epochs=1))
    assert metrics["tuning"]["comparison"]["gain"] == 0 and "no epoch was better" in metrics["tuning"]["verdict"]
    assert not (tmp_path / "model" / "codes").exists()
    fb.predict(str(codes), str(tmp_path / "labels"), str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train": fb.TrainConfig(labels=("nowhere.csv",))}, "There is no labels file nowhere.csv"),
        ({"train": fb.TrainConfig()}, "`labels`"),
        ({"encode": fb.EncodeConfig(layer="pool5", pool="avg")}, "vgg16 up to pool5 has no layers of `unfreeze` fc"),
        ({"encode": fb.EncodeConfig(layer="relu9")}, "relu9"),
        ({"encode": fb.EncodeConfig(layer="pool5")}, "`pool` avg, max or flatten"),
    ],
)
def test_invalid_settings_are_refused_before_encoding(photos, tmp_path, monkeypatch, change, told):
    monkeypatch.setattr(finetune, "encode", lambda *_, **__: pytest.fail("hours of work"))
    with pytest.raises(InputError, match=told):
        fb.finetune(photos, tmp_path / "model", fb.FinetuneConfig(**{"train": fb.TrainConfig(("folder",))} | change))


@pytest.mark.parametrize("augment", [("",), ("none",), ("crop", "blur")])
def test_unknown_augmentations_are_refused(augment):
    with pytest.raises(InputError, match="`augment` must be of crop, flip, colour, or none of them"):
        fb.FinetuneConfig(augment=augment)


def test_network_without_weights_is_refused(photos, tmp_path):
    with pytest.raises(InputError, match="The null network has nothing to train"):
        fb.finetune(photos, tmp_path / "model", replace(CONFIG, encode=fb.EncodeConfig(network="null")))


@pytest.mark.parametrize(
    ("better", "worse", "best", "expected"),
    [
        (30, 2, 3, "Fine-tuning paid: more labels are right than with frozen codes (+28.0% of 100 held-out photos"),
        (2, 30, 3, "Fine-tuning did not pay: fewer labels are right than with frozen codes (-28.0%"),
        (3, 1, 3, "Fine-tuning did not pay: the difference may be chance (+2.0%"),
        (5, 0, 3, "Fine-tuning did not pay: the difference may be chance (+5.0% of 100 held-out photos, 95% "),
        (6, 0, 3, "Fine-tuning paid: more labels are right than with frozen codes (+6.0%"),
        (0, 0, 0, "Fine-tuning did not pay: no epoch was better on the validation photos"),
    ],
)
def test_verdict_says_whether_fine_tuning_paid(better, worse, best, expected):
    from flowers_batch.classifier.evaluation import compare

    right, before = np.ones(100, bool), np.ones(100, bool)
    before[:better], right[better : better + worse] = False, False
    tuning = {
        "comparison": compare(right, before),
        "best_epoch": best,
        "minutes": 12.0,
        "frozen": {"minutes": 3.0, "model": "M"},
    }
    text = verdict(tuning)
    assert text.startswith(expected) and "12.0 minutes instead of 3.0" in text
    assert text.endswith("Use M.") != ("did not" not in text)


def test_summary_shows_epochs_costs_and_verdict(tuned):
    metrics = json.loads((tuned / "metrics.json").read_text())
    text = training_text(metrics, "model")
    assert "all was trained, from random:3; the best epoch is" in text
    scalings = int(metrics["calibration"]["temperature"] != 1)
    assert text.count("before") == 1 + scalings
    assert "with frozen codes, accuracy" in text and "fine-tuned, accuracy" in text
    assert "would more labels help" not in text and "Fine-tuning " in text


def finetuning(photos: Path, model: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    options = (
        "--labels folder --weights random:3 --unfreeze all --epochs 8 --batch-size 1 --precision float32 "
        "--augment flip,crop --json"
    )
    command = [sys.executable, "-m", "flowers_batch", "finetune", str(photos), str(model), *options.split()]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def actor_past_an_epoch(model: Path, process: subprocess.Popen[str]) -> int:
    """The process of the actor that trains, once it has saved an epoch."""
    before: list[Path] | None = None
    while True:
        assert process.poll() is None, process.communicate()
        actors = [pid for pid, name in descendants(process.pid).items() if "RemoteSingleActor" in name]
        saved = sorted(model.glob("epochs/epoch-*"))
        if actors and before is None:
            before = saved
        if actors and saved and saved != before and saved[-1].name > "epoch-0000":
            return actors[0]
        time.sleep(0.05)


@pytest.mark.nightly
@pytest.mark.faults
def test_killed_driver_and_killed_actor_change_no_result(photos, tmp_path):
    """The driver dies in one epoch, the actor of the next driver in another."""
    environment = os.environ | {"PYTHONPATH": narrowing(tmp_path / "narrow"), "RAY_ADDRESS": ""}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    undisturbed = finetuning(photos, whole, environment)
    expected = json.loads(undisturbed.communicate()[0])
    assert undisturbed.returncode == 0

    first = finetuning(photos, broken, environment)
    actor_past_an_epoch(broken, first)
    first.kill()
    first.communicate()
    second = finetuning(photos, broken, environment)
    os.kill(actor_past_an_epoch(broken, second), signal.SIGKILL)
    out, said = second.communicate()
    assert second.returncode == 0, said
    assert "finetune: The actor died: " in said and "Another resumes the work." in said
    found = json.loads(out)

    def figures(metrics):
        told = [
            [epoch[name] for name in ("loss", "accuracy", "validation_loss")] for epoch in metrics["tuning"]["epochs"]
        ]
        return told, metrics["test"], metrics["tuning"]["comparison"]

    assert figures(found) == figures(expected)
    files = [dict(load_file(model / name)) for model in (whole, broken) for name in (NETWORK, "head.safetensors")]
    for one, other in zip(files[:2], files[2:], strict=True):
        assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


@pytest.mark.nightly
def test_vgg16_learns_real_flowers_and_resumes_to_the_same(real_photos, tmp_path):
    """VGG16 as it is, with random weights, on real photos: minutes on two cores."""
    command = [sys.executable, "-m", "flowers_batch", "finetune", str(real_photos)]
    options = "--labels folder --weights random:0 --unfreeze fc --epochs 4 --augment flip --json"

    def run(model: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, str(model), *options.split()], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = json.loads(run(whole).communicate()[0])
    accuracy = [epoch["accuracy"] for epoch in expected["tuning"]["epochs"][1:]]
    assert accuracy[-1] > accuracy[0], accuracy
    shutil.copytree(whole / "frozen", broken / "frozen")
    first = run(broken)
    actor_past_an_epoch(broken, first)
    first.kill()
    first.communicate()
    second = run(broken)
    found = json.loads(second.communicate()[0])
    assert second.returncode == 0
    assert found["test"] == expected["test"]
    assert_parameters_equal(parameters(broken / NETWORK), parameters(whole / NETWORK))
