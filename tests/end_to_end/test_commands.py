"""Complete jobs from the command line."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import run
from helpers import draw_archive, write

from flowers_batch.demo import demo
from flowers_batch.demo.inputs import PHOTOS_ENVIRONMENT


def test_commands_work_from_encode_to_report(capsys, archive, tmp_path, local_ray):
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


def test_encode_names_what_it_leaves_out(capsys, archive, tmp_path, local_ray):
    photos, codes = tmp_path / "photos", str(tmp_path / "codes")
    shutil.copytree(archive, photos)
    names = [path.relative_to(archive) for path in sorted(archive.rglob("*.png"))]
    for name in names:
        system = photos / name.parent / "@eaDir" / name.name
        system.mkdir(parents=True)
        shutil.copy(archive / name, system / "SYNOPHOTO_THUMB_M.png")
    (photos / names[0].parent / "clip.MOV").touch()
    code, out, _ = run(capsys, "encode", str(photos), codes, "--network", "null", "--exclude", f"/{names[0]}")
    assert code == 0 and "encoded 29 images: 29 ok, 0 failed, 0 done before, 2 other files ignored" in out
    assert f"  skipped: 30 in @eaDir, 1 excluded by /{names[0]}\n  ignored: 1 .mov, 1 .txt\n" in out
    code, out, _ = run(capsys, "encode", str(photos), codes, "--network", "null", "--include-hidden", "--json")
    assert code == 0 and json.loads(out)["changes"]["new"] == 31


def rows_of(codes: Path) -> list[dict[str, Any]]:
    files = sorted((codes / "codes").glob("shard-*"))
    return [
        row for file in files for row in pq.read_table(file, columns=["path", "status", "reason", "sha256"]).to_pylist()
    ]


def test_tar_of_a_folder_with_links_gives_the_folders_rows(capsys, tmp_path, local_ray):
    archive = draw_archive(tmp_path / "photos", 2)
    os.link(archive / "red" / "0000.png", archive / "blue" / "hard.png")
    write(archive, {"red/@eaDir/0000.png": b"thumbnail", "red/._0000.png": b"fork", "notes.txt": b""})
    for link, target in {"best.png": "green/0001.png", "lost.png": "gone.png", "linked": "red", "red/up": ".."}.items():
        (archive / link).symlink_to(target)
    with tarfile.open(tmp_path / "photos.tar", "w") as file:
        file.add(archive, "")
    summaries = []
    for photos in ("photos", "photos.tar"):
        arguments = ("encode", str(tmp_path / photos), str(tmp_path / f"codes of {photos}"), "--network", "null")
        code, out, _ = run(capsys, *arguments, "--json")
        assert code == 0
        summaries.append(json.loads(out))
        rows = {row["path"].removeprefix("photos.tar!"): row for row in rows_of(tmp_path / f"codes of {photos}")}
        assert {path for path, row in rows.items() if row["status"] == "failed"} == {"lost.png"}
        assert rows["lost.png"]["reason"] == "missing"
        assert rows["linked/0001.png"]["sha256"] == rows["red/0001.png"]["sha256"]
        assert rows["blue/hard.png"]["sha256"] == rows["linked/0000.png"]["sha256"]
        code, out, _ = run(capsys, *arguments)
        assert code == 0 and "11 done before" in out
    for name in ("images", "ok", "failed", "duplicates", "ignored_endings", "skipped"):
        assert summaries[0][name] == summaries[1][name], name
    assert [summary["loops"]["first"] for summary in summaries] == [
        ["linked/up", "red/up"],
        ["photos.tar!linked/up", "photos.tar!red/up"],
    ]
    assert summaries[0]["images"] == 11 and summaries[0]["skipped"] == {"@eaDir": 2, "._*": 2}


def test_random_weights_are_announced_with_results(capsys, archive, tmp_path, local_ray):
    codes, model, labels = (str(tmp_path / name) for name in ("codes", "model", "labels"))
    run(capsys, "encode", str(archive), codes, "--network", "null")
    job = tmp_path / "codes" / "job.json"
    job.write_text(job.read_text().replace('"weights": "null",\n  "root"', '"weights": "random:5",\n  "root"'))
    for arguments in (
        ("train", codes, model, "--labels", "folder", "--json"),
        ("predict", codes, labels, "--model", model, "--json"),
    ):
        code, out, err = run(capsys, *arguments)
        assert code == 0 and json.loads(out)["weights"] == "random:5"
        assert "random:5, never trained" in err


@pytest.mark.nightly  # `.ci/run` runs the demo on real photos
def test_demo_labels_real_photos_of_the_named_folder(capsys, tmp_path, monkeypatch, local_ray):
    """The demo as it is, with the null network in place of VGG16."""
    monkeypatch.setenv(PHOTOS_ENVIRONMENT, str(as_jpeg(draw_archive(tmp_path / "photos", 20))))
    monkeypatch.setattr(demo, "run_demo", partial(demo.run_demo, network="null"))
    code, out, err = run(capsys, "demo", "--out", str(tmp_path / "demo"), "--offline")
    assert code == 0
    assert "cross-validated accuracy" in out and "report.html\nto correct labels: flowers-batch review " in out
    assert "synthetic" not in out and "random:0" in out
    assert all(f"[{number}/6]" in err for number in range(1, 7))
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "data:image/webp" in page and "--follow-links" not in page  # the demo's photos are links
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    code, _, err = run(capsys, "demo", "--out", str(tmp_path / "other"), "--offline")
    assert code == 2 and "something other than a demo" in err


@pytest.mark.slow
def test_demo_draws_photos_if_none_are_available(capsys, tmp_path, monkeypatch, local_ray):
    monkeypatch.delenv(PHOTOS_ENVIRONMENT, raising=False)
    monkeypatch.delenv("FLOWERS_BATCH_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "run_demo", partial(demo.run_demo, network="null", synthetic_photos=60))
    code, out, _ = run(capsys, "demo", "--out", str(tmp_path / "demo"), "--offline", "--json")
    result = json.loads(out)
    assert code == 0 and result["photos"] == "synthetic" and result["weights"] == "random:0"
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "drawn by a program" in page and "says nothing about real photos" in page
    assert len(list((tmp_path / "demo" / "photos" / "unlabelled").glob("*.jpg"))) == 10
    assert not (tmp_path / "cache").exists()


def as_jpeg(folder: Path) -> Path:
    from PIL import Image

    for path in folder.rglob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    return folder
