"""The photos of an archive that are most like given ones."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from codes_folder import labels, write_codes
from commands import run
from helpers import draw_archive, run_on_one_actor_here, run_shards_here

import flowers_batch as fb
from flowers_batch.runs.similar import similar


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, in_threads) -> Path:
    """Drawn photos of three colours and their codes."""
    base = tmp_path_factory.mktemp("similar")
    photos = draw_archive(base / "photos", 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
        fb.encode(photos, base / "codes", fb.EncodeConfig(network="null", shard_size=5))
    return base


@pytest.fixture
def actor_here(monkeypatch, in_threads) -> None:
    """Does the work of an actor in this process."""
    monkeypatch.setattr("flowers_batch.runs.similar.run_on_one_actor", run_on_one_actor_here)


@pytest.fixture
def codes(tmp_path) -> Path:
    return write_codes(tmp_path / "codes", labels(daisy=20, rose=20), spread=0.2, broken=(3,))


def test_photos_of_the_archive_are_found_by_their_paths(codes):
    rows = similar(codes, ["daisy/001.jpg"], 18)
    assert {row["path"].split("/")[0] for row in rows} == {"daisy"} and len(rows) == 18
    assert "daisy/001.jpg" not in {row["path"] for row in rows}
    found = [row["similarity"] for row in rows]
    assert found == sorted(found, reverse=True) and 0.9 < found[-1] <= found[0] <= 1
    assert similar(codes, [f"{codes}/daisy/001.jpg"], 18) == rows  # below the archive's root, as labels files have it


def test_several_photos_are_compared_together(codes):
    rows = similar(codes, ["daisy/001.jpg", "rose/030.jpg"], 37)
    assert len(rows) == 37 and not {"daisy/001.jpg", "rose/030.jpg"} & {row["path"] for row in rows}


def test_other_photos_are_encoded_as_the_archive_was(encoded, tmp_path, actor_here):
    copy = shutil.copy(encoded / "photos/red/0001.png", tmp_path / "a photo?.png")
    rows = similar(encoded / "codes", [str(copy)], 3)
    assert rows[0] == {"path": "red/0001.png", "similarity": 1.0}
    assert similar(encoded / "codes", [str(copy), "red/0001.png"], 3)[0]["path"] != "red/0001.png"


def test_photos_that_cannot_be_compared_are_named(codes, encoded, tmp_path, actor_here):
    with pytest.raises(fb.InputError, match=r"daisy/003\.jpg has no code"):
        similar(codes, ["daisy/003.jpg"])
    with pytest.raises(fb.InputError, match=r"nothing\.jpg is neither a photo of .* nor a file"):
        similar(codes, ["nothing.jpg"])
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(fb.InputError, match=r"empty\.png cannot be compared \(not_an_image"):
        similar(encoded / "codes", [str(tmp_path / "empty.png")])


@pytest.mark.parametrize(
    ("photos", "count", "words"), [([], 5, "`photos` is empty"), (["a.jpg"], 0, "`count` must be")]
)
def test_settings_that_ask_for_nothing_are_refused(codes, photos, count, words):
    with pytest.raises(fb.InputError, match=words):
        similar(codes, photos, count)


def test_command_prints_and_writes_similar_photos(codes, tmp_path, capsys):
    file = tmp_path / "similar.csv"
    code, printed, _ = run(capsys, "similar", str(codes), "rose/030.jpg", "--count", "4", "--csv", str(file), "--json")
    found = json.loads(printed)["similar"]
    assert code == 0 and found == fb.similar(codes, ["rose/030.jpg"], 4)
    with open(file, encoding="utf-8-sig") as rows:
        assert [row["path"] for row in csv.DictReader(rows)] == [row["path"] for row in found]
    code, printed, _ = run(capsys, "similar", str(codes), "rose/030.jpg", "rose/031.jpg")
    assert code == 0 and len(printed.splitlines()) == 20 and printed.startswith("0.9")


@pytest.mark.slow
def test_other_photo_is_encoded_by_an_actor(encoded, tmp_path, local_ray):
    copy = shutil.copy(encoded / "photos/blue/0002.png", tmp_path / "copy.png")
    assert similar(encoded / "codes", [str(copy)], 1) == [{"path": "blue/0002.png", "similarity": 1.0}]
