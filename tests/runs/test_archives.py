"""Runs over archives of each kind, as they grow, with labels for each; in this process, without Ray."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import PATH_OF, names
from helpers import draw_archive, run_on_one_actor_here, run_shards_here

import flowers_batch as fb
from flowers_batch.cli.rendering import summary_text
from flowers_batch.dataset.run_folder import open_run

pytestmark = pytest.mark.usefixtures("in_threads")

NULL = fb.EncodeConfig(network="null", shard_size=7)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
    monkeypatch.setattr("flowers_batch.runs.verify.run_on_one_actor", run_on_one_actor_here)


def rows(folder: Path, kind: str, *columns: str) -> dict[str, dict]:
    return {
        row["path"]: row for batch in open_run(folder, kind).batches(["path", *columns]) for row in batch.to_pylist()
    }


@pytest.mark.parametrize("make", PATH_OF, ids=lambda make: make.__name__)
def test_archives_of_each_kind_give_their_photos_codes_and_labels(
    make: Callable[[Path, Path], Path], without_ray, tmp_path
):
    photos, codes = draw_archive(tmp_path / "photos", 10), tmp_path / "codes"
    (tmp_path / "kind").mkdir()
    archive = make(photos, tmp_path / "kind")
    summary = fb.encode(archive, codes, NULL)
    assert (summary.ok, summary.failed, summary.shards) == (30, 0, 5)
    assert fb.verify(codes, deep=True).is_complete
    fb.encode(photos, tmp_path / "reference", NULL)
    reference, found = rows(tmp_path / "reference", "codes", "code", "folder"), rows(codes, "codes", "code", "folder")
    assert len(found) == 30
    for name, row in reference.items():
        same = found[PATH_OF[make](photos, name)]
        assert (same["code"], same["folder"]) == (row["code"], row["folder"])

    labels = tmp_path / "labels.csv"
    paths = {name: PATH_OF[make](photos, name) for name in names(photos)}
    labels.write_text("path,label\n" + "".join(f"{path},{name[:3]}\n" for name, path in paths.items()))
    fb.train(codes, tmp_path / "model", fb.TrainConfig(labels=(str(labels),), head="logistic"))
    fb.predict(archive, tmp_path / "labels", tmp_path / "model", fb.PredictConfig(shard_size=7))
    labelled = rows(tmp_path / "labels", "predictions", "prediction")
    assert sum(labelled[path]["prediction"] == name[:3] for name, path in paths.items()) >= 27
    page = Path(fb.report(tmp_path / "labels")).read_text()
    assert page.count("data:image/webp") >= 10


@pytest.mark.parametrize("make", PATH_OF, ids=lambda make: make.__name__)
def test_archives_of_each_kind_may_grow(make: Callable[[Path, Path], Path], without_ray, tmp_path):
    photos, codes = draw_archive(tmp_path / "photos", 5), tmp_path / "codes"
    (tmp_path / "kind").mkdir()
    fb.encode(make(photos, tmp_path / "kind"), codes, NULL)
    assert fb.encode(make(photos, tmp_path / "kind"), codes, NULL).changes["new"] == 0
    shutil.copytree(photos / "red", photos / "another red")
    (photos / "green" / "0002.png").unlink()
    shutil.copy(photos / "blue" / "0001.png", photos / "blue" / "0003.png")
    summary = fb.encode(make(photos, tmp_path / "kind"), codes, NULL)
    assert (summary.images, summary.missing, summary.changes["new"]) == (20, 1, 5)
    assert summary.duplicates == 6
    assert fb.verify(codes, deep=True).is_complete
    fb.encode(photos, tmp_path / "reference", NULL)
    found = rows(codes, "codes", "code")
    for name, row in rows(tmp_path / "reference", "codes", "code").items():
        assert found[PATH_OF[make](photos, name)]["code"] == row["code"]
    assert fb.encode(make(photos, tmp_path / "kind"), codes, fb.EncodeConfig(network="null", prune=True)).images == 19
    assert fb.verify(codes).is_complete


def test_copies_in_one_shard_and_in_others_are_computed_and_counted(without_ray, tmp_path):
    photos, codes = draw_archive(tmp_path / "photos", 2), tmp_path / "codes"
    for number in range(2):
        shutil.copy(photos / "red" / "0000.png", photos / f"copy-{number}.png")
        (photos / "red" / f"text-{number}.png").write_text("not an image")
    summary = fb.encode(photos, codes, fb.EncodeConfig(network="null", shard_size=3))
    assert (summary.images, summary.failed, summary.duplicates) == (10, 2, 3)
    assert "  3 with the same bytes as an earlier one\n" in summary_text("encoded", "codes", summary.to_json())
    assert "3 photos have the same bytes as an earlier one." in Path(fb.report(codes)).read_text()
    found = rows(codes, "codes", "code", "sha256")
    assert found["copy-0.png"]["code"] == found["copy-1.png"]["code"] == found["red/0000.png"]["code"] is not None
