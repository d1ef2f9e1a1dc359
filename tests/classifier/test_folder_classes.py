"""The folder that names a photo's class."""

from __future__ import annotations

import json
import tracemalloc
import unicodedata
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pytest
from codes_folder import labels, write_codes
from commands import run

import flowers_batch as fb
from flowers_batch.classifier.folder_classes import (
    FolderLabels,
    count_folders,
    describe_choice,
    find_class_level,
    folder_names,
)
from flowers_batch.classifier.label_sources import check_labels
from flowers_batch.classifier.labels import read_labelled
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError
from flowers_batch.sources.opening import open_source

LOGISTIC = ("--head", "logistic", "--json")


def classes_of(*paths: str) -> list[str | None]:
    """Return the label of each path under `folder`."""
    array = pa.array(paths)
    return FolderLabels(find_class_level(count_folders([array])) or 1).of(array)


@pytest.mark.parametrize(
    ("paths", "level"),
    [
        (["daisy/1.jpg", "rose/1.jpg"], 1),
        (["daisy/1.jpg", "rose/1.jpg", "1.jpg"], 1),  # a photo without a class
        (["photos/export/daisy/1.jpg", "photos/export/rose/1.jpg"], 3),
        (["snapshots/abc/daisy/1.jpg", "snapshots/abc/rose/1.jpg", "README.jpg"], 3),
        (["train/daisy/1.jpg", "train/rose/1.jpg", "val/daisy/1.jpg"], 2),
        (["Train/daisy/1.jpg", "TEST/rose/1.jpg"], 2),
        (["daisy/train/1.jpg", "daisy/test/2.jpg", "rose/train/3.jpg"], 1),
        (["daisy/images/1.jpg", "rose/images/1.jpg"], 1),
        (["daisy/images/1.jpg", "rose/1.jpg"], 1),
        (["images/train/daisy/1.jpg", "images/valid/rose/1.jpg"], 3),
        (["flowers/daisy/raw/1.jpg", "flowers/rose/raw/1.jpg"], 2),
        (["train/daisy/1.jpg", "train/rose/1.jpg", "train/1.jpg"], 2),
        (["daisy/garden/1.jpg", "daisy/vase/1.jpg", "rose/field/1.jpg"], 1),
        (["daisy/1.jpg"], 1),  # one class remains a class
        (["flowers/daisy/1.jpg"], 2),
        (["flowers/daisy/images/1.jpg"], 2),
        (["/data/in/daisy/1.jpg", "/data/in/rose/1.jpg"], 3),
        (["s3://bucket/daisy/1.jpg", "s3://bucket/rose/1.jpg?endpoint_override=http://h/x"], 2),
        (["a.tar!daisy/1.jpg", "b.tar!rose/1.jpg"], 1),
        (["a.tar!./daisy/1.jpg", "b.tar!./rose/1.jpg"], 1),
        (["a.tar!train/daisy/1.jpg", "a.tar!test/rose/1.jpg"], 2),
        (["./daisy/1.jpg", "x/../rose//1.jpg"], 1),
        (["fleur\u00e9/daisy/1.jpg", "fleure\u0301/rose/2.jpg"], 2),
    ],
)
def test_first_level_that_tells_classes_apart_is_taken(paths, level):
    assert find_class_level(count_folders([pa.array(paths)])) == level


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        (
            ["daisy/2019/1.jpg", "daisy/2020/1.jpg", "rose/2019/1.jpg"],
            r"\(2019 is in daisy and in rose\): choose `labels` folder:1 \(daisy 2, rose 1\) or folder:-1",
        ),
        (
            ["2019/daisy/1.jpg", "2020/rose/1.jpg"],
            r"\(2019 is a date\): choose `labels` folder:1 \(2019 1, 2020 1\) or folder:-1 \(daisy 1, rose 1\)\.",
        ),
        (
            ["north/daisy/1.jpg", "south/daisy/1.jpg", "north/rose/1.jpg"],
            r"\(daisy is in north and in south\): choose `labels` folder:1 \(north 2, south 1\) or folder:-1 \(daisy 2",
        ),
        (
            ["daisy/1.jpg", "rose/2019/1.jpg"],
            r"photos are in daisy and in rose/2019\): choose `labels` folder:1 \(daisy 1, rose 1\) or folder:-1 \(2019",
        ),
        (
            ["all/1.jpg", "all/daisy/1.jpg", "all/rose/1.jpg"],
            r"photos are in all and in all/daisy\): choose `labels` folder:2 \(daisy 1, rose 1\) or folder:-1 \(all",
        ),
        (
            ["train/daisy/1.jpg", "extra/rose/1.jpg"],
            r"\(train is beside extra\): choose `labels` folder:1 \(extra 1, train 1\) or folder:-1 \(daisy 1, rose 1",
        ),
        (["photos/1.jpg", "drawings/1.jpg"], r"\(photos is beside drawings\): choose `labels` folder:1 \(drawings 1"),
        (["train/1.jpg", "test/1.jpg"], r"\(no name is that of a class\): choose `labels` folder:-1 \(test 1, train 1"),
        (
            ["daisy/images/1.jpg", "rose/old/images/1.jpg"],
            r"\(images is beside old\): choose `labels` folder:1 \(daisy 1, rose 1\) or folder:2 \(images 1, old 1\)",
        ),
    ],
)
def test_folders_that_can_be_read_in_two_ways_are_refused(paths, told):
    with pytest.raises(InputError, match=told):
        find_class_level(count_folders([pa.array(paths)]))


def test_levels_count_from_the_root_or_from_the_photo():
    paths = pa.array(["1.jpg", "daisy/2.jpg", "train/rose/3.jpg", "a.tar!x/y/z/4.jpg"])
    assert FolderLabels(1).of(paths) == [None, "daisy", "train", "x"]
    assert FolderLabels(2).of(paths) == [None, None, "rose", "y"]
    assert FolderLabels(-1).of(paths) == [None, "daisy", "rose", "z"]
    assert FolderLabels(-2).of(paths) == [None, None, "train", "y"]


def test_folders_of_two_unicode_forms_are_one_class():
    composed = "G\u00e4nsebl\u00fcmchen"
    decomposed = unicodedata.normalize("NFD", composed)
    assert classes_of(f"{composed}/1.jpg", f"{decomposed}/2.jpg", "Rosen /3.jpg") == [composed, composed, "Rosen"]


def test_names_that_are_not_utf8_leave_the_class_of_others():
    key = "//bytes/" + quote("gr\u00fcn/".encode() + b"\xff.jpg")
    odd = "//bytes/" + quote(b"gr\xfcn/1.jpg")
    assert classes_of("gr\u00fcn/1.jpg", key, odd) == ["gr\u00fcn", "gr\u00fcn", "gr%FCn"]
    assert folder_names("//bytes/" + quote(b"a.tar!rot/")) == ("rot",)


def test_options_of_urls_are_no_folders():
    paths = [f"s3://b/daisy/{number}.jpg?endpoint_override=http://host/{number}" for number in range(99)]
    assert count_folders([pa.array(paths)]) == Counter({("s3://b", "daisy"): 99})


def test_memory_grows_with_folders_not_photos():
    def batches():
        for first in range(0, 200_000, 4096):
            yield pa.array([f"{number % 7}/{number:09d}-{'x' * 100}.jpg" for number in range(first, first + 4096)])

    tracemalloc.start()
    count_folders(batches())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000


def test_choice_names_what_each_reading_gives():
    clear = count_folders([pa.array(["daisy/1.jpg"] * 8 + [f"rose {number}/1.jpg" for number in range(9)])])
    assert describe_choice(clear) == "folder (daisy 8, rose 0 1, rose 1 1, rose 2 1, rose 3 1 and 5 more)"
    unclear = count_folders([pa.array(["daisy/2019/1.jpg", "rose/2020/1.jpg"])])
    assert describe_choice(unclear) == "folder:1 (daisy 1, rose 1) or folder:-1 (2019 1, 2020 1)"
    assert describe_choice(count_folders([pa.array(["1.jpg"])])) == ""


def test_photos_without_the_level_are_counted_as_unlabelled(tmp_path):
    codes = write_codes(tmp_path / "codes", ["daisy/2019", "daisy", "rose/2019", None])
    found = read_labelled(open_run(str(codes), CODES), ["folder:2"])
    assert found.labels.tolist() == ["2019", "2019"] and found.counts.unlabelled == 2


def test_level_that_no_photo_has_is_refused_with_those_that_there_are(tmp_path):
    run = open_run(str(write_codes(tmp_path / "codes", ["daisy", "rose"])), CODES)
    with pytest.raises(
        InputError, match=r"has a label: choose `labels` folder \(daisy 1, rose 1\), or give `labels` a"
    ):
        read_labelled(run, ["folder:2"])


def test_deep_folders_are_shortened_in_the_refusal():
    deep = "/".join(["a folder of a long name"] * 60)
    with pytest.raises(InputError, match=r"photos are in rose and in daisy/a folder.*…") as refusal:
        find_class_level(count_folders([pa.array([f"daisy/{deep}/1.jpg", "rose/1.jpg"])]))
    assert len(str(refusal.value)) < 400


def test_choice_without_folders_is_a_file(tmp_path):
    run = open_run(str(write_codes(tmp_path / "codes", [None, None])), CODES)
    with pytest.raises(InputError, match=r"from: `labels` xmp \(.*\), or a CSV or Parquet file with path,label\.$"):
        read_labelled(run, [])


def test_photos_without_folders_are_refused_before_encoding(tmp_path):
    (tmp_path / "1.jpg").touch()
    photos = open_source(str(tmp_path))
    with pytest.raises(InputError, match=r"No photo of .* is in a folder: put each into a folder named for its class"):
        check_labels(["folder"], photos)
    (tmp_path / "labels.csv").write_text("path,label\n1.jpg,rose\n")
    check_labels(["folder", str(tmp_path / "labels.csv")], photos)


def test_photos_that_failed_do_not_decide_on_the_level(tmp_path):
    codes = write_codes(tmp_path / "codes", ["daisy", "rose", "rose/old"], failed=1)
    assert read_labelled(open_run(str(codes), CODES), ["folder"]).labels.tolist() == ["daisy", "rose"]


def test_photos_without_any_code_are_no_matter_of_labels(tmp_path):
    codes = write_codes(tmp_path / "codes", ["daisy", "rose"], failed=2)
    with pytest.raises(InputError, match=r"None of the photos in .* has a code"):
        read_labelled(open_run(str(codes), CODES), ["folder"])


@pytest.mark.parametrize("name", ["folder:", "folder:0", "folder:one", "folder:1.5", "folder:99999"])
def test_level_that_is_no_number_is_refused(tmp_path, name):
    codes = write_codes(tmp_path / "codes", ["daisy", "rose"])
    with pytest.raises(InputError, match=f"folder:N must have a number.* Received: {name}"):
        read_labelled(open_run(str(codes), CODES), [name])


def test_train_command_says_which_level_it_took(tmp_path, capsys):
    codes = write_codes(tmp_path / "codes", labels(**{"in/daisy": 30, "in/rose": 30}))
    code, out, err = run(capsys, "train", str(codes), str(tmp_path / "model"), "--labels", "folder", *LOGISTIC)
    assert code == 0 and json.loads(out)["classes"] == ["daisy", "rose"]
    assert "train: the classes are the folders of level 2: daisy 30, rose 30\n" in err


def test_train_command_asks_where_labels_come_from(tmp_path, capsys):
    nested = {"daisy/2019": 15, "daisy/2020": 15, "rose/2019": 15, "rose/2020": 15}
    codes = write_codes(tmp_path / "codes", labels(**nested))
    command = ("train", str(codes), str(tmp_path / "model"))
    code, _, err = run(capsys, *command)
    choice = "--labels folder:1 (daisy 30, rose 30) or folder:-1 (2019 30, 2020 30)"
    asked = f"{choice}, xmp (keywords in the photos, with --classes), or a CSV or Parquet file"
    assert code == 2 and f"Say where labels come from: {asked}" in err
    code, _, err = run(capsys, *command, "--labels", "folder")
    assert code == 2 and f"choose {choice}." in err and not (tmp_path / "model").exists()
    code, out, _ = run(capsys, *command, "--labels", "folder:1", *LOGISTIC)
    assert code == 0 and json.loads(out)["classes"] == ["daisy", "rose"]
    assert json.loads((tmp_path / "model" / "model.json").read_text())["training"]["labels"] == ["folder:1"]


def test_classes_that_differ_in_case_or_spaces_are_named(tmp_path, capsys):
    names = {"rose garden": 20, "Rose Garden": 20, "rosegarden": 20, "daisy": 20}
    names |= {f"{kind}{n}": 3 for n in range(6) for kind in ("x", "X")}
    codes = write_codes(tmp_path / "codes", labels(**names))
    code, out, err = run(capsys, "train", str(codes), str(tmp_path / "model"), "--labels", "folder", *LOGISTIC)
    similar = ["Rose Garden", "rose garden", "rosegarden"]
    assert code == 0 and json.loads(out)["similar_classes"] == [similar, *([f"X{n}", f"x{n}"] for n in range(6))]
    assert f"differ only in case or spaces: {', '.join(map(repr, similar))}; 'X0', 'x0'; " in err
    assert err.count("differ only") == 1 and "'X3', 'x3'; and 2 more" in err


def test_ambiguous_folders_are_refused_before_encoding(tmp_path, monkeypatch):
    from flowers_batch.finetuning import frozen

    monkeypatch.setattr(frozen, "encode", lambda *_, **__: pytest.fail("hours of work"))
    for name in ("daisy/2019", "daisy/2020", "rose/2019"):
        Path(tmp_path / "photos" / name).mkdir(parents=True)
        Path(tmp_path / "photos" / name / "1.jpg").touch()
    for given, told in (("folder",), "folder:1 (daisy 2, rose 1)"), ((), "folder:1 (daisy 2, rose 1)"):
        with pytest.raises(InputError) as refused:
            fb.finetune(tmp_path / "photos", tmp_path / "model", fb.FinetuneConfig(train=fb.TrainConfig(given)))
        assert told in str(refused.value)
    assert not (tmp_path / "model").exists()
