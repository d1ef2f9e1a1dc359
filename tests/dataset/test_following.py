"""Places that a folder's files name: which are followed, and by whom a folder may have been made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from codes_folder import write_codes
from commands import run as run_command

import flowers_batch as fb
from flowers_batch.classifier.model_folder import MODEL
from flowers_batch.dataset import following
from flowers_batch.dataset.following import follow, follow_weights
from flowers_batch.dataset.job import JOB
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.errors import InputError
from flowers_batch.storage.folder import Folder
from flowers_batch.storage.opening import open_folder

RUN = "s3://bucket/run?region=x&endpoint_override=own.example:9000"
REFUSED = r"names .* as `images`, and .*: if you trust it, give it as `images`, or another place\.$"


@pytest.fixture
def run(tmp_path) -> Path:
    """Return a folder of codes of photos in a folder."""
    folder = write_codes(tmp_path / "run", [*"ab"])
    (tmp_path / "photos").mkdir()
    return name_images(folder, tmp_path / "photos")


def name_images(folder: Path, images: object, file: str = JOB, **others: object) -> Path:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | {"images": str(images)} | others))
    return folder


def of_another_user(monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)


@pytest.mark.parametrize(
    ("place", "followed"),
    [
        ("s3://bucket/photos", "s3://bucket/photos?region=x&endpoint_override=own.example:9000"),
        ("s3://bucket/photos?endpoint_override=evil.example&scheme=http", f"{RUN.replace('/run', '/photos')}"),
        ("s3://bucket@evil.example/photos", None),
        ("s3://other/photos", None),
        ("gs://bucket/photos", None),
        ("hdfs://evil.example:8020/photos", None),
        ("/etc", None),
        ("file:///etc", None),
    ],
)
def test_store_of_a_folder_is_the_only_one_that_it_may_name(place, followed):
    folder = open_folder(RUN)
    if followed:
        assert follow(folder, JOB, "images", place) == followed
        return
    with pytest.raises(InputError, match=REFUSED):
        follow(folder, JOB, "images", place)
    assert follow(folder, JOB, "images", place, "/given") == "/given"


@pytest.mark.parametrize(
    "place", ["s3://bucket/photos?endpoint_override=evil.example", "gs://bucket/x", "hdfs://evil/x"]
)
def test_folder_on_a_disk_names_no_store(run, place):
    with pytest.raises(InputError, match=REFUSED):
        follow(open_folder(run), JOB, "images", place)


def test_own_folder_may_name_any_path(run, tmp_path):
    assert open_run(run, "codes").photos == (str(tmp_path / "photos"), None)


def test_folder_of_another_user_names_only_what_is_in_it(run, tmp_path, monkeypatch):
    of_another_user(monkeypatch)
    with pytest.raises(InputError, match=f"{tmp_path}/photos as `images`, and that file, or its folder, belongs"):
        open_run(run, "codes").place("images")
    assert open_run(run, "codes", {"images": "/photos"}).photos == ("/photos", None)
    assert follow(open_folder(run), JOB, "codes", f"{run}/codes") == f"{run}/codes"
    (run / "link").symlink_to(tmp_path)
    for place in (f"{run}/../photos", f"{run}/link/photos", f"{run}x"):
        with pytest.raises(InputError, match="belongs to another user"):
            follow(open_folder(run), JOB, "codes", place)


def test_file_of_another_user_in_an_own_folder_is_not_believed(run, monkeypatch):
    real = os.stat
    other = os.stat_result([*real(run)[:4], os.geteuid() + 1, *real(run)[5:10]])
    monkeypatch.setattr(
        following.os, "stat", lambda path, **options: other if path == str(run / JOB) else real(path, **options)
    )
    with pytest.raises(InputError, match="belongs to another user"):
        open_run(run, "codes").place("images")


@pytest.mark.parametrize("name", ["imagenet", "random:3", "none"])
def test_weights_that_are_no_file_are_followed_anywhere(name):
    assert follow_weights(Folder(RUN, None, "bucket/run"), MODEL, name) == name
    with pytest.raises(InputError, match="as `weights`, and"):
        follow_weights(Folder(RUN, None, "bucket/run"), MODEL, "/etc/shadow")


def test_report_says_where_photos_are_read_from_and_follows_no_stranger(run, tmp_path, monkeypatch):
    said: list[str] = []
    reporter = type("Heard", (), {"message": lambda _, text: said.append(text), "update": lambda *_: None})()
    fb.report(run, tmp_path / "r.html", reporter=reporter)
    assert said == [f"photos are read from {tmp_path / 'photos'}"]
    name_images(run, "s3://bucket/photos?endpoint_override=127.0.0.1:1&scheme=http")
    with pytest.raises(InputError, match=REFUSED):
        fb.report(run)
    of_another_user(monkeypatch)
    name_images(run, tmp_path / "photos")
    with pytest.raises(InputError, match=REFUSED):
        fb.report(run)
    fb.report(run, tmp_path / "r.html", images=tmp_path / "photos", reporter=reporter)


def test_report_on_a_model_of_another_user_takes_codes_and_photos(tmp_path, monkeypatch, capsys):
    codes = write_codes(tmp_path / "codes", [*"ab"] * 20)
    fb.train(codes, tmp_path / "model", fb.TrainConfig(("folder",), head="logistic"))
    of_another_user(monkeypatch)
    command = ["report", str(tmp_path / "model"), "--out", str(tmp_path / "r.html")]
    (tmp_path / "photos").mkdir()
    for given, wanted in (([], "--codes"), (["--codes", codes], "--images")):
        assert f"give it as {wanted}" in run_command(capsys, *command, *map(str, given))[2]
    given = "--codes", str(codes), "--images", str(tmp_path / "photos")
    assert run_command(capsys, *command, *given)[0] == 0 and (tmp_path / "r.html").exists()


def test_model_of_a_stranger_names_no_codes(tmp_path):
    evil = "s3://evil/codes?endpoint_override=127.0.0.1:1&scheme=http"
    run = open_run(name_images(write_codes(tmp_path / "run", [*"ab"]), "/photos", codes=evil), "codes")
    with pytest.raises(InputError, match="as `codes`, and that is not on the folder's own store"):
        run.place("codes")


def test_commands_refuse_what_a_stranger_names_and_secrets(run, tmp_path):
    name_images(run, "s3://bucket/photos?endpoint_override=127.0.0.1:1&scheme=http&sig=hunter2")
    secret = "s3://bucket/photos?X-Amz-Signature=hunter2"
    for arguments, sentence in (
        (["report", run], "give it as `--images`"),
        (["predict", run, tmp_path / "out", "--model", "imagenet", "--csv", secret], "may be credentials"),
    ):
        command = [sys.executable, "-m", "flowers_batch", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and sentence.replace("`", "") in done.stderr.replace("`", ""), done.stderr
        assert "hunter2" not in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
