"""The command as a person meets it: help, sentences instead of tracebacks, exit codes, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import draw_archive

from flowers_batch.cli.main import main


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err


def test_the_whole_job_from_the_command_line(capsys, archive, tmp_path, local_ray):
    codes, model, labels, page = (str(tmp_path / name) for name in ("codes", "model", "labels", "page.html"))
    code, out, err = run(capsys, "encode", str(archive), codes, "--network", "null", "--shard-size", "8", "--json")
    assert code == 0 and err == "encode: 30 of 30 images, 0 failed\n"
    summary = json.loads(out)
    expected = {"images", "ok", "failed", "ignored", "resumed", "seconds", "images_per_second", "stages"}
    assert expected | {"reasons", "fingerprint"} <= set(summary)
    code, out, _ = run(capsys, "encode", str(archive), codes, "--network", "null")
    assert code == 0 and "30 done before" in out
    code, out, _ = run(capsys, "train", codes, model, "--labels", "folder", "--head", "mlp", "--seed", "3")
    assert code == 0 and "test accuracy" in out and "confusion matrix" in out
    arguments = ("predict", str(archive), labels, "--model", model, "--csv", str(tmp_path / "labels.csv"))
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if "%" in line] == [
        "read",
        "decode",
        "wait",
        "network",
        "write",
    ]
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 31
    code, out, _ = run(capsys, "verify", labels)
    assert code == 0 and "complete" in out
    code, out, _ = run(capsys, "report", labels, "--out", page)
    assert code == 0 and out == f"report: {page}\n"
    next(Path(labels, "predictions").glob("shard-*")).unlink()
    code, out, _ = run(capsys, "verify", labels, "--json")
    assert code == 1 and json.loads(out)["complete"] is False and json.loads(out)["problems"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("encode", "{tmp}/none", "{tmp}/out"), "There is no folder"),
        (("encode", "{archive}/red/0000.png", "{tmp}/out"), "is not a folder"),
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
        (("encode", "s3://key:secret@bucket/x", "{tmp}/out"), "contains credentials"),
        (("train", "{tmp}", "{tmp}/model"), "not a folder of codes"),
        (("weights", "fetch", "--network", "null"), "--network must be one of"),
        (("weights", "check", "{archive}/notes.txt"), "must end in .npy, .h5"),
        (("weights", "convert", "random:0", "{tmp}/weights.pth"), "must end in .npy, .h5"),
        (("predict", "{archive}", "{tmp}/out", "--model", "{tmp}"), "not a model folder"),
        (("report", "{tmp}"), "neither predictions, nor codes, nor a model"),
        (("verify", "{tmp}"), "not the folder of an encode or predict run"),
        (("encode", "{archive}"), "Missing argument"),
        (("encode", "{archive}", "{tmp}/out", "--batch-size", "many"), "valid integer"),
        (("paint",), "No such command"),
    ],
)
def test_bad_usage_and_bad_input_are_a_sentence_and_exit_code_2(capsys, archive, tmp_path, arguments, sentence):
    filled = [argument.format(tmp=tmp_path, archive=archive) for argument in arguments]
    code, out, err = run(capsys, *filled)
    assert code == 2 and out == ""
    assert sentence in err and "Traceback" not in err and "secret" not in err


def test_an_output_folder_that_cannot_be_made_is_exit_code_2(capsys, archive, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "encode", str(archive), str(tmp_path / "file" / "out"), "--network", "null")
    assert code == 2 and "Traceback" not in err and "cannot be written to (Not a directory)" in err


def test_debug_shows_the_traceback(capsys, tmp_path):
    assert "Traceback" in run(capsys, "verify", str(tmp_path), "--debug")[2]


def test_help_is_quick_to_import_and_has_examples():
    for command in ("encode", "train", "predict", "report", "verify", "demo"):
        printed = subprocess.run(
            [sys.executable, "-m", "flowers_batch", command, "--help"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        assert f"Example: flowers-batch {command}" in printed


def test_random_weights_are_announced_wherever_results_are(capsys, archive, tmp_path, local_ray):
    codes, model, labels = (str(tmp_path / name) for name in ("codes", "model", "labels"))
    run(capsys, "encode", str(archive), codes, "--network", "null")
    job = tmp_path / "codes" / "job.json"
    job.write_text(job.read_text().replace('"weights": "null",\n  "root"', '"weights": "random:5",\n  "root"'))
    for arguments in (("train", codes, model, "--json"), ("predict", codes, labels, "--model", model, "--json")):
        code, out, err = run(capsys, *arguments)
        assert code == 0 and json.loads(out)["weights"] == "random:5"
        assert "random:5, never trained" in err


def test_demo_labels_real_photos_from_the_folder_that_is_named(capsys, tmp_path, monkeypatch, local_ray):
    """The demo's own path, with a network that takes no time in place of VGG16."""
    from flowers_batch.demo import demo

    monkeypatch.setenv(demo.PHOTOS_ENVIRONMENT, str(as_jpeg(draw_archive(tmp_path / "photos", 20))))
    monkeypatch.setattr(demo, "EncodeConfig", lambda weights, shard_size: null_config(shard_size))
    code, out, err = run(capsys, "demo", "--out", str(tmp_path / "demo"), "--offline")
    assert code == 0
    assert "test accuracy" in out and out.rstrip().endswith("report.html")
    assert "drawn" not in out and "random:0" in out
    assert all(f"[{number}/6]" in err for number in range(1, 7))
    assert (tmp_path / "demo" / "report.html").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    code, _, err = run(capsys, "demo", "--out", str(tmp_path / "other"), "--offline")
    assert code == 2 and "something else than a demo" in err


def test_demo_draws_photos_where_none_are_to_be_had(capsys, tmp_path, monkeypatch, local_ray):
    from flowers_batch.demo import demo

    monkeypatch.delenv(demo.PHOTOS_ENVIRONMENT, raising=False)
    monkeypatch.delenv("FLOWERS_BATCH_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "_DRAWN_PHOTOS", 60)
    monkeypatch.setattr(demo, "EncodeConfig", lambda weights, shard_size: null_config(shard_size))
    code, out, _ = run(capsys, "demo", "--out", str(tmp_path / "demo"), "--offline", "--json")
    result = json.loads(out)
    assert code == 0 and result["photos"] == "drawn" and result["weights"] == "random:0"
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "drawn by a program" in page and "says nothing about real photos" in page
    assert len(list((tmp_path / "demo" / "photos" / "unlabelled").glob("*.jpg"))) == 10
    assert not (tmp_path / "cache").exists()


def null_config(shard_size: int):
    import flowers_batch as fb

    return fb.EncodeConfig(network="null", shard_size=shard_size)


def as_jpeg(folder: Path) -> Path:
    from PIL import Image

    for path in folder.rglob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    return folder


@pytest.mark.parametrize(
    ("given", "says"), [("many", "auto or a number"), ("0", "1 or more"), ("1.5", "auto or a number")]
)
def test_actors_are_a_number_or_auto(given, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["encode", str(tmp_path), str(tmp_path / "codes"), "--actors", given])
    assert ended.value.code == 2 and says in capsys.readouterr().err
