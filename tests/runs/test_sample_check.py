"""Encoding a sample again finds rows that do not belong to their images; in this process, without Ray."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import draw_archive, run_on_one_actor_here, run_shards_here

import flowers_batch as fb
from flowers_batch.dataset.job import read_job
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.dataset.shard_file import read_footer, write_shard
from flowers_batch.progress import NULL_REPORTER
from flowers_batch.runs.sample_check import SampleCheck, SampleResult, describe_difference
from flowers_batch.storage.opening import open_folder

pytestmark = pytest.mark.usefixtures("in_threads")

OK = {"sha256": b"x", "status": "ok", "reason": None}


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Path:
    """Codes of 12 images, one of which failed; beside them a model and labels by it."""
    base = tmp_path_factory.mktemp("sample")
    photos = draw_archive(base / "photos", 4)
    (photos / "red" / "0000.png").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
        fb.encode(photos, base / "codes", fb.EncodeConfig(network="null", shard_size=4))
        fb.train(base / "codes", base / "model", fb.TrainConfig(("folder",), head="logistic"))
        fb.predict(photos, base / "labels", base / "model", fb.PredictConfig(shard_size=4))
        fb.predict(base / "codes", base / "labels_of_codes", base / "model")
    return base


@pytest.fixture
def codes(complete, tmp_path) -> Path:
    return shutil.copytree(complete / "codes", tmp_path / "codes")


def check(folder: Path, **options) -> SampleResult:
    assert fb.verify(folder).is_complete
    return SampleCheck(open_folder(folder).url, read_job(open_folder(folder)), 0, **options)(2, 0, NULL_REPORTER)


def change_rows(folder: Path, kind: str, shard: int, change) -> None:
    """Write a shard with other rows, as no run would."""
    out = open_folder(folder)
    footer = read_footer(out, kind, shard)
    table = change(pq.read_table(folder / kind / f"shard-{shard:06d}.parquet"))
    write_shard(out, kind, table.schema, table.to_batches(), footer)


def test_sample_of_a_complete_run_has_no_problems(complete):
    for name in ("codes", "labels", "labels_of_codes"):
        assert check(complete / name) == SampleResult(12, [])


def test_sample_has_its_size(complete):
    assert check(complete / "codes", size=5) == SampleResult(5, [])


def test_photo_with_other_bytes_is_named(complete, codes, monkeypatch):
    monkeypatch.setattr("flowers_batch.runs.verify.run_on_one_actor", run_on_one_actor_here)
    photo = complete / "photos" / "green" / "0002.png"
    before, times = photo.read_bytes(), photo.stat()
    try:
        photo.write_bytes((complete / "photos" / "red" / "0003.png").read_bytes())
        verified = fb.verify(codes, deep=True)
        assert verified.sampled == 12
        assert verified.problems == [
            "green/0002.png has other bytes now than when its row was made: run the same command again."
        ]
        photo.unlink()
        (problem,) = check(codes).problems
        assert problem.startswith("green/0002.png has other bytes now")
    finally:
        photo.write_bytes(before)
        os.utime(photo, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_codes_of_other_photos_are_named(codes):
    def swap(table: pa.Table) -> pa.Table:
        return table.set_column(10, table.schema.field("code"), table["code"].take(pa.array([0, 2, 1, 3])))

    change_rows(codes, CODES, 1, swap)
    problems = check(codes).problems
    assert len(problems) == 2 and all("has another code in its row" in problem for problem in problems)


def test_wrong_labels_are_named(complete, tmp_path):
    def make_red(table: pa.Table) -> pa.Table:
        wrong = {"top_labels": ["red"], "top_probabilities": [1.0]}
        return pa.Table.from_pylist([row | wrong for row in table.to_pylist()], table.schema)

    labels = shutil.copytree(complete / "labels", tmp_path / "labels")
    change_rows(labels, PREDICTIONS, 1, make_red)
    assert any("in its row" in problem for problem in check(labels).problems)


def test_images_that_moved_are_refused(complete, tmp_path, monkeypatch):
    monkeypatch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
    photos = shutil.copytree(complete / "photos", tmp_path / "photos")
    fb.encode(photos, tmp_path / "codes", fb.EncodeConfig(network="null"))
    photos.rename(tmp_path / "moved")
    with pytest.raises(fb.InputError, match="There is no folder"):
        check(tmp_path / "codes")


@pytest.mark.parametrize(
    ("stored", "now", "difference"),
    [
        (OK | {"code": [1.0, 2.0]}, OK | {"code": [1.0, 2.0]}, ""),
        (OK | {"code": [1.0, 2.0]}, OK | {"code": [1.0, 2.01]}, ""),
        (OK | {"code": [1.0, 2.0]}, OK | {"code": [1.0, 3.0]}, "another code in its row"),
        (OK | {"status": "failed", "reason": "truncated"}, OK | {"status": "failed", "reason": "truncated"}, ""),
        (OK | {"status": "failed", "reason": "truncated"}, OK, "fails with None now, and with truncated in its row"),
        (OK, OK | {"sha256": b"y"}, "has other bytes now"),
    ],
)
def test_rows_differ_by_more_than_the_hardware_explains(stored, now, difference):
    assert difference in describe_difference(stored, now)
    assert bool(difference) == bool(describe_difference(stored, now))
