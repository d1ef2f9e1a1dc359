"""The command: help, sentences instead of tracebacks, exit codes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest
from codes_folder import write_codes
from commands import run

import flowers_batch
import flowers_batch as fb
from flowers_batch.pages.report import page
from tensorflow_vgg import weights as vgg


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("encode", "{tmp}/none", "{tmp}/out"), "There is no folder"),
        (("encode", "{archive}/red/0000.png", "{tmp}/out"), "is not a folder"),
        (("shrink", "{archive}", "{tmp}/out", "--decode", "auto"), "--decode must be one of exact, fast"),
        (("encode", "{archive}", "{tmp}/out", "--root", "{tmp}"), "--root is for lists of paths"),
        (("encode", "{archive}", "{tmp}/out", "--weights", "{tmp}/none.npy"), "no weights file"),
        (("encode", "{archive}", "{tmp}/out", "--weights", "{archive}/notes.txt"), "must end in .npy, .h5"),
        (("encode", "{archive}", "{tmp}/out", "--weights", "random:x"), "random:SEED"),
        (("encode", "{archive}", "{tmp}/out", "--precision", "float8"), "--precision must be one of"),
        (("encode", "{archive}", "{tmp}/out", "--network", "resnet"), "--network must be one of"),
        (("encode", "{archive}", "{tmp}/out", "--layer", "fc99", "--weights", "random:0"), "has no layer fc99"),
        (("encode", "{archive}", "{tmp}/out", "--layer", "pool5", "--weights", "random:0"), "--pool avg, max"),
        (("encode", "{archive}", "{tmp}/out", "--shard-size", "0"), "--shard-size must be 1 or more"),
        (("encode", "{archive}", "{tmp}/out", "--stall-timeout", "0"), "--stall-timeout must be 1 or more"),
        (("encode", "s3://key:secret@bucket/x", "{tmp}/out"), "may contain credentials"),
        (("train", "{tmp}", "{tmp}/model", "--labels", "folder"), "not a folder of codes"),
        (("weights", "fetch", "--network", "null"), "--network must be one of"),
        (("weights", "check", "{archive}/notes.txt"), "must end in .npy, .h5"),
        (("weights", "convert", "random:0", "{tmp}/weights.pth"), "must end in .npy, .h5"),
        (("predict", "{archive}", "{tmp}/out", "--model", "{tmp}"), "not a model folder"),
        (("report", "{tmp}"), "neither predictions, nor codes, nor a model"),
        (("verify", "{tmp}"), "not the folder of an encode, predict or shrink run"),
        (("encode", "{archive}"), "Missing argument"),
        (("encode", "{archive}", "{tmp}/out", "--batch-size", "many"), "valid integer"),
        (("paint",), "No such command"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(capsys, archive, tmp_path, arguments, sentence):
    filled = [argument.format(tmp=tmp_path, archive=archive) for argument in arguments]
    code, out, err = run(capsys, *filled)
    assert code == 2 and out == ""
    assert sentence in err and "Traceback" not in err and "secret" not in err


@pytest.mark.parametrize("named", [True, False])
def test_weights_without_the_layer_name_one_that_they_have(capsys, archive, tmp_path, narrow, monkeypatch, named):
    path = tmp_path / "conv.safetensors"
    vgg.write(path, vgg.load(vgg.find("random:0"), "vgg16", "pool5"), "float32", {})
    monkeypatch.setenv("FLOWERS_BATCH_WEIGHTS", str(path))
    weights = str(path) if named else "imagenet"
    code, _, err = run(capsys, "encode", str(archive), str(tmp_path / "out"), "--weights", weights)
    assert code == 2 and "--layer pool5 --pool avg" in err and "relu6" in err and err.count("\n") == 1
    assert ("FLOWERS_BATCH_WEIGHTS" in err) != named


def test_output_folder_that_cannot_be_made_is_exit_code_2(capsys, archive, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "encode", str(archive), str(tmp_path / "file" / "out"), "--network", "null")
    assert code == 2 and "Traceback" not in err and "cannot be written to (Not a directory)" in err


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_traceback(capsys, tmp_path, before):
    arguments = ["verify", str(tmp_path)]
    code, _, err = run(capsys, *(["--debug", *arguments] if before else [*arguments, "--debug"]))
    assert code == 2 and "Traceback" in err


def test_command_makes_nothing_that_every_user_can_write(capsys):
    before = os.umask(0)
    try:
        run(capsys, "--version")
    finally:
        umask = os.umask(before)
    assert umask == stat.S_IWOTH


def test_version_is_the_packages(capsys):
    assert run(capsys, "--version") == (0, f"flowers-batch {flowers_batch.__version__}\n", "")


def test_prints_of_libraries_go_to_standard_error(capsys, monkeypatch):
    def report(folder, out, **_):
        print("a library prints")
        return "page.html"

    monkeypatch.setattr(page, "report", report)
    assert run(capsys, "report", "run", "--json") == (0, '{"report": "page.html"}\n', "a library prints\n")


def test_help_is_quick_to_import_and_has_examples():
    for command in ("encode", "train", "predict", "report", "verify", "demo"):
        printed = subprocess.run(
            [sys.executable, "-m", "flowers_batch", command, "--help"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        assert f"Example: flowers-batch {command}" in printed


@pytest.mark.parametrize(
    ("given", "says"), [("many", "auto or a number"), ("0", "1 or more"), ("1.5", "auto or a number")]
)
def test_actors_are_a_number_or_auto(given, says, tmp_path, capsys):
    code, _, err = run(capsys, "encode", str(tmp_path), str(tmp_path / "codes"), "--actors", given)
    assert code == 2 and says in err


HOSTILE = {"Löwenzahn 蒲公英 \U0001f33c": b"L\\xf6wenzahn", "ro\x1b[31m\rse\x9b2J": b"ro\\u001b[31m\\u000dse\\u009b2J"}


@pytest.mark.parametrize(
    ("style", "environment"),
    [
        ("lines", {"LC_ALL": "C", "PYTHONUTF8": "0"}),
        ("bar", {"PYTHONIOENCODING": "ascii"}),
        pytest.param("json", {"PYTHONIOENCODING": "cp1252"}, marks=pytest.mark.slow),
    ],
    ids=["lines", "bar", "json"],
)
def test_names_end_no_command_and_control_no_terminal(tmp_path, environment, style):
    """Photos, classes and folders may have any name, and a terminal any encoding."""
    codes = write_codes(tmp_path / "codes", [*(name for name in HOSTILE for _ in range(12)), "r\x1b[2Jre"])
    arguments = ["train", str(codes), str(tmp_path / "model"), "--labels", "folder", "--head", "logistic"]
    for options in ((), ("--json",)) if style == "json" else ((),):
        command = [sys.executable, "-m", "flowers_batch", "--progress", style, *arguments, *options]
        ended = subprocess.run(command, capture_output=True, env=os.environ | environment)
        assert ended.returncode == 0, ended.stderr
        for printed in (ended.stdout, ended.stderr):
            assert not any(raw in printed for raw in (b"\x1b[31m", b"\x1b[2J", "\x9b".encode()))
        if options:
            assert json.loads(ended.stdout)["classes"] == sorted([*HOSTILE, "r\x1b[2Jre"])
        elif "PYTHONIOENCODING" not in environment or environment["PYTHONIOENCODING"] == "ascii":
            assert all(name in ended.stdout for name in HOSTILE.values())


def test_name_in_an_error_controls_no_terminal(tmp_path, capsys):
    code, _, err = run(capsys, "encode", str(tmp_path / "gone\x1b[2J\nerror: none"), str(tmp_path / "out"))
    assert code == 2 and "gone\\u001b[2J\\u000aerror: none" in err and "\x1b" not in err


def test_name_in_a_list_begins_no_line(tmp_path, capsys):
    codes = write_codes(tmp_path / "codes", ["dai\nsy", "rose"] * 30, spread=20)
    fb.train(codes, tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    code, out, _ = run(capsys, "label-issues", str(tmp_path / "model"))
    assert code == 0 and "dai\\u000asy" in out and "dai\nsy" not in out


def test_train_names_the_classes_that_it_cannot_test(tmp_path, capsys):
    codes = write_codes(tmp_path / "codes", [*(["daisy", "rose"] * 20), "tulip"])
    arguments = ["train", str(codes), str(tmp_path / "model"), "--labels", "folder", "--head", "logistic"]
    few = "1 class has fewer than 3 photos that are no copies of each other, too few to be tested"
    sentence = f"{few}: tulip (1); label more."
    code, out, err = run(capsys, *arguments)
    assert code == 0 and sentence in out and sentence in err
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0 and json.loads(out)["left_out_classes"]["untested"] == {"tulip": 1}
    code, out, _ = run(capsys, "report", str(tmp_path / "model"))
    assert code == 0 and sentence in (tmp_path / "model" / "report.html").read_text()
    code, _, err = run(capsys, *arguments, "--min-photos-per-class", "30")
    assert code == 2 and "Too few photos are labelled" in err and "daisy (20), rose (20), tulip (1)" in err


def test_list_of_https_is_refused_before_the_run_starts(capsys, tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg\nhttps://example.org/b.jpg?X-Amz-Signature=secret\n")
    code, out, err = run(capsys, "encode", str(tmp_path / "list.txt"), str(tmp_path / "out"), "--network", "null")
    assert (code, out) == (2, "") and "secret" not in err
    assert "https://example.org/b.jpg cannot be opened: " in err and "a URL of s3, gs, abfs, abfss, hdfs or file" in err
    assert not (tmp_path / "out" / "codes").exists()


def test_train_takes_labels_as_people_have_them(capsys, tmp_path):
    codes = write_codes(tmp_path / "codes", ["x"] * 60)
    rows = [f".\\x\\{number:03d}.jpg;{'Gänse' if number % 2 else 'Rosen'}" for number in range(60)]
    content = "\r\n".join(["sep=;", "Path ; LABEL", *rows, "y/007.jpg;Rosen", ""])
    (tmp_path / "labels.csv").write_bytes(content.encode("cp1252"))
    arguments = ("train", str(codes), str(tmp_path / "model"), "--labels", str(tmp_path / "labels.csv"))
    code, out, err = run(capsys, *arguments, "--head", "logistic")
    assert code == 0 and "of 2 classes" in out and "Gänse" in out
    assert "1 label is for a path that the codes do not have, such as y/007.jpg (nearest: x/007.jpg)" in out
    assert "labels.csv is not UTF-8, and is read as Windows-1252" in err
