"""Keywords as labels; the codes are made in this process, without Ray."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import run
from helpers import draw_archive, read_csv, run_shards_here, write
from tagged_photos import xmp
from thread_pool import decoding_in_threads

import flowers_batch as fb
from flowers_batch.classifier.label_sources import check_labels
from flowers_batch.classifier.labels import LabelledPhotos, read_labelled
from flowers_batch.classifier.metrics_sentences import keyword_sentences
from flowers_batch.cli.metrics_rendering import training_text
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.finetuning.frozen import SETTINGS, with_first_labels
from flowers_batch.progress import NULL_REPORTER, NullReporter, Reporter
from flowers_batch.sources.opening import open_source
from flowers_batch.storage.opening import open_folder

CLASSES = ("scarlet=Red,crimson", "green", "blue")


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Iterator[Path]:
    """An archive of three colours whose sidecars name the colour, and its codes."""
    monkeypatch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
    photos = draw_archive(tmp_path / "photos", 12)
    for number, file in enumerate(sorted(photos.rglob("*.png"))):
        word = "Crimson" if file.parent.name == "red" and number % 2 else file.parent.name
        packet = xmp("holiday", paths=(f"colour|{word}",)) if number % 3 else xmp("holiday", word)
        file.with_name(f"{file.name}.xmp").write_bytes(packet)
    with decoding_in_threads():
        fb.encode(photos, tmp_path / "codes", fb.EncodeConfig(network="null"))
        yield tmp_path


def train(folder: Path, *labels: str, classes: tuple[str, ...] = CLASSES) -> dict:
    config = fb.TrainConfig(labels=("xmp", *labels), classes=classes, head="logistic")
    return fb.train(folder / "codes", folder / "model", config)


def labelled(folder: Path, *others: str, reporter: Reporter = NULL_REPORTER) -> LabelledPhotos:
    return read_labelled(open_run(folder / "codes", CODES), ["xmp", *others], reporter, classes=CLASSES)


def labels_in(photos: LabelledPhotos) -> dict[str, str]:
    return dict(zip(photos.paths, photos.labels.tolist(), strict=True))


def test_classifier_is_trained_on_keywords(archive):
    file = archive / "classes.txt"
    file.write_text("\n".join(CLASSES))
    metrics = train(archive, classes=(str(file),))
    assert metrics["classes"] == ["blue", "green", "scarlet"]
    assert metrics["cross_validation"]["accuracy"] > 0.9
    table = pq.read_table(archive / "model" / "labels.parquet")
    expected = {"red": "scarlet", "green": "green", "blue": "blue"}
    assert len(table) == 36
    for path, label in zip(table["path"].to_pylist(), table["label"].to_pylist(), strict=True):
        assert label == expected[path.partition("/")[0]]
    file.unlink()
    training = json.loads((archive / "model" / "model.json").read_text())["training"]
    assert (training["labels"], training["classes"]) == (["xmp"], list(CLASSES)), "what the file held"
    shutil.copytree(archive / "model", archive / "tuned" / "frozen" / "model")
    (archive / "tuned" / SETTINGS).touch()
    again = [
        with_first_labels(open_folder(archive / "tuned"), fb.TrainConfig(("xmp",), classes=classes), NULL_REPORTER)
        for classes in (CLASSES, CLASSES[:2])
    ]
    assert again[0].labels == (str(archive / "tuned" / "frozen" / "model" / "labels.parquet"),) and not again[0].classes
    assert (again[1].labels, again[1].classes) == (("xmp",), CLASSES[:2]), "other classes are other labels"


def test_photos_with_keywords_of_two_classes_are_listed_and_can_be_settled(archive):
    (archive / "photos" / "red" / "0000.xmp").write_bytes(xmp("Blue"))
    metrics = train(archive)
    assert metrics["several_classes"] == [{"path": "red/0000.png", "classes": ["blue", "scarlet"]}]
    text = training_text(metrics, "model")
    assert "1 photo has keywords of several classes, and no label." in text and "red/0000.png: blue, scarlet" in text
    (row,) = read_csv(archive / "model" / "several-classes.csv")
    assert row == {"path": "red/0000.png", "label": "", "classes": "blue; scarlet"}
    settled = archive / "settled.csv"
    settled.write_text("path,label,classes\nred/0000.png,scarlet,blue; scarlet\n")
    photos = labelled(archive, str(settled))
    assert photos.counts.several_classes == [] and labels_in(photos)["red/0000.png"] == "scarlet"


def test_keywords_that_this_program_wrote_are_no_labels(archive):
    for name in ("red/0000", "red/0001"):
        (archive / "photos" / f"{name}.png.xmp").write_bytes(xmp("holiday", ours="blue"))
    labels = labels_in(labelled(archive))
    assert len(labels) == 34 and {"red/0000.png", "red/0001.png"}.isdisjoint(labels)


def test_other_labels_are_merged_as_usual(archive):
    file = str(write(archive, {"other.csv": b"path,label\nred/0000.png,blue\n"}) / "other.csv")
    photos = labelled(archive, file)
    assert photos.counts.disagreements == [{"path": "red/0000.png", "labels": {"xmp": "scarlet", file: "blue"}}]
    assert labels_in(photos)["red/0000.png"] == "blue"


def test_unread_keywords_are_told(archive):
    (archive / "photos" / "red" / "0000.png.xmp").write_bytes(b"<x")
    (archive / "photos" / "red" / "0001.png").unlink()
    counts = labelled(archive).counts
    first, second, third = keyword_sentences(asdict(counts))
    assert first == "The keywords of 2 photos could not all be read."
    assert second.startswith("  red/0000.png: red/0000.png.xmp: Its XMP cannot be read: ")
    assert third == "  red/0001.png: The file no longer exists."


def test_xmp_without_classes_names_the_most_frequent_keywords(archive, capsys):
    command = ["train", str(archive / "codes"), str(archive / "model"), "--labels", "xmp"]
    code, _, err = run(capsys, *command)
    assert code == 2 and "--labels xmp needs --classes, the keywords that are classes." in err
    assert (
        "The most frequent keywords of 36 photos are holiday 36, colour/blue 8, colour/green 8" in err
        and "such as --classes holiday,colour/blue;" in err
    )
    code, _, err = run(capsys, *command, "--classes", "rose,tulip")
    assert code == 2 and "No photo has a keyword of --classes rose, tulip. The most frequent" in err


def test_photos_that_all_have_several_classes_are_refused(archive):
    with pytest.raises(fb.InputError, match=r"has those of several classes, such as blue/0000\.png \(blue, holiday\)"):
        read_labelled(
            open_run(archive / "codes", CODES), ["xmp"], classes=["holiday", "blue", "green", "red", "crimson"]
        )


def test_class_without_photos_is_named(archive, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(NullReporter, "message", lambda _, sentence: said.append(sentence))
    read_labelled(open_run(archive / "codes", CODES), ["xmp"], classes=[*CLASSES, "gold", "silver=holi"])
    assert said == ["no photo has the keywords of gold, silver alone"]


def test_classes_without_xmp_are_refused():
    with pytest.raises(fb.InputError, match="`classes` says which keywords are classes: add `labels` xmp"):
        fb.TrainConfig(labels=("folder",), classes=("rose",))
    with pytest.raises(fb.InputError, match="`classes` must be a tuple"):
        fb.TrainConfig(labels=("xmp",), classes="rose")


def test_keywords_are_checked_before_photos_are_encoded(archive):
    source = open_source(str(archive / "photos"))
    check_labels(["xmp"], source, CLASSES)
    with pytest.raises(fb.InputError, match="`labels` xmp needs `classes`"):
        check_labels(["xmp"], source)
    with pytest.raises(fb.InputError, match="No photo has a keyword of `classes` rose"):
        check_labels(["xmp"], source, ["rose"])
    for file in (archive / "photos").rglob("*.xmp"):
        file.unlink()
    with pytest.raises(fb.InputError, match="None of 36 photos has a keyword, in itself or in a sidecar"):
        check_labels(["xmp"], source, CLASSES)


def test_manifest_cannot_name_photos_that_a_list_does_not(archive, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{file}\n" for file in sorted((archive / "photos").rglob("*.png"))))
    fb.encode(listed, tmp_path / "listed", fb.EncodeConfig(network="null"))
    run_ = open_run(tmp_path / "listed", CODES)
    assert len(read_labelled(run_, ["xmp"], classes=CLASSES).paths) == 36
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(fb.InputError, match=r"blue/0000\.png"):
        read_labelled(run_, ["xmp"], classes=CLASSES)
