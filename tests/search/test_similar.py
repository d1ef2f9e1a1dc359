"""Search of codes, exact and approximate."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from codes_folder import labels, write_codes
from run_folders import write_run
from safetensors.numpy import load_file, save_file

from flowers_batch.classifier.normalization import Normalization
from flowers_batch.dataset.job import read_job
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.errors import InputError
from flowers_batch.search import approximate, codec, similar
from flowers_batch.search.approximate import ApproximateIndex
from flowers_batch.search.similar import CodeSearch
from flowers_batch.storage.opening import open_folder

EXACT, APPROXIMATE, PROJECTED = KINDS = ("exact", "approximate", "projected")


@pytest.fixture
def is_approximate(monkeypatch) -> None:
    monkeypatch.setattr(similar, "MAX_EXACT_VALUES", 0)


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch) -> str:
    """The kind of search that any archive gets."""
    if request.param != EXACT:
        monkeypatch.setattr(similar, "MAX_EXACT_VALUES", 0)
    if request.param == PROJECTED:
        monkeypatch.setattr(codec, "_MAX_DIMENSIONS", 6)
    return request.param


@pytest.fixture
def encoded(monkeypatch) -> list[list[int]]:
    """The shards of each part of an index that was made."""
    parts, encode = list[list[int]](), ApproximateIndex._encode
    monkeypatch.setattr(
        ApproximateIndex,
        "_encode",
        lambda self, shards, reporter: parts.append([each.number for each in shards]) or encode(self, shards, reporter),
    )
    return parts


def run_of(tmp_path: Path, **options) -> Run:
    return open_run(write_codes(tmp_path / "codes", labels(daisy=40, rose=30, tulip=20), **options), CODES)


def run_of_shards(tmp_path: Path, shards: int, folder: str = "codes") -> Run:
    """The same photos as of `run_of`, 20 to a shard, of which the first ones are in the run; files beside them stay."""
    whole = write_codes(tmp_path / "whole", labels(daisy=40, rose=30, tulip=20))
    table, job = pq.read_table(whole / "codes/shard-000000.parquet"), read_job(open_folder(whole))
    for name in ("codes", "manifest"):
        shutil.rmtree(tmp_path / folder / name, ignore_errors=True)
    rows = [table.slice(20 * number, 20).to_batches() for number in range(shards)]
    write_run(open_folder(tmp_path / folder), job, rows)
    return open_run(tmp_path / folder, CODES)


def cosines_of(run: Run) -> np.ndarray:
    """The cosines between all codes of a run."""
    codes = np.array([code for batch in run.batches(["code"]) for code in batch["code"].to_pylist()], np.float32)
    normalized = Normalization("l2")(codes)
    return normalized @ normalized.T


def test_nearest_photos_are_those_of_the_greatest_cosine(tmp_path, kind):
    run = run_of(tmp_path)
    cosines = cosines_of(run)[7]
    rows, similarities = CodeSearch(run).nearest_to_rows([7], 10)
    expected = [row for row in np.argsort(-cosines).tolist() if row != 7][:10]
    assert len(set(rows.tolist()) & set(expected)) >= (10 if kind == EXACT else 9) and 7 not in rows
    assert np.abs(similarities - cosines[rows]).max() < (5e-3 if kind == APPROXIMATE else 1e-3)
    assert (np.diff(similarities) <= 0).all()


def test_several_photos_are_compared_by_their_mean(tmp_path, kind):
    run = run_of(tmp_path, width=64)
    search = CodeSearch(run)
    rows, _ = search.nearest_to_rows([3, 50, 3], 40)
    assert not {3, 50} & set(rows.tolist())
    assert {*(rows < 40).tolist()} == {True, False}  # daisies and roses
    mean = Normalization("l2")(search.codes_of([3, 50])).mean(0, keepdims=True)
    assert search.nearest(mean, 42)[0][0, :2].tolist() in ([3, 50], [50, 3])


def test_each_of_several_codes_gets_an_answer(tmp_path, kind):
    search = CodeSearch(run_of(tmp_path))
    rows, similarities = search.nearest(search.codes_of([5, 80, 41]), 4)
    assert rows.shape == similarities.shape == (3, 4) and rows[:, 0].tolist() == [5, 80, 41]
    assert np.abs(similarities[:, 0] - 1).max() < 5e-3


def test_failed_photos_are_not_found_and_not_compared(tmp_path, kind):
    search = CodeSearch(run_of(tmp_path, broken=(2, 60), failed=1))
    rows, _ = search.nearest_to_rows([0], 10**15)
    assert sorted(rows.tolist()) == sorted(set(range(90)) - {0, 2, 60, 89})
    with pytest.raises(InputError, match=r"rose/060\.jpg has no code"):
        search.nearest_to_rows([0, 60], 5)


def test_archive_without_codes_has_no_similar_photos(tmp_path, monkeypatch):
    run = open_run(write_codes(tmp_path / "codes", labels(daisy=3), failed=3), CODES)
    for largest in (100, 0):
        monkeypatch.setattr(similar, "MAX_EXACT_VALUES", largest)
        assert CodeSearch(run).nearest(np.ones((2, 12)), 5)[0].shape == (2, 0)


def test_index_is_made_once(tmp_path, is_approximate, encoded):
    run = run_of(tmp_path)
    first = CodeSearch(run).nearest_to_rows([7], 10)
    again = CodeSearch(run).nearest_to_rows([7], 10)
    assert encoded == [[0]] and all((one == other).all() for one, other in zip(first, again, strict=True))


def test_index_of_a_grown_archive_is_extended(tmp_path, is_approximate, encoded, monkeypatch):
    monkeypatch.setattr(approximate, "_SHARDS_PER_PART", 2)
    CodeSearch(run_of_shards(tmp_path, 3))
    grown = run_of_shards(tmp_path, 4)
    rows, _ = CodeSearch(grown).nearest_to_rows([7], 79)
    assert encoded == [[0, 1], [2], [2, 3]]
    assert sorted(rows.tolist()) == [row for row in range(80) if row != 7]


def test_index_of_a_much_larger_archive_is_made_again(tmp_path, is_approximate, encoded, monkeypatch):
    monkeypatch.setattr(codec, "_GROWTH", 1.9)
    monkeypatch.setattr(codec, "_ROWS_PER_LIST", 1000)  # one list, so that parts of the old codec have the same shapes
    monkeypatch.setattr(approximate, "_SHARDS_PER_PART", 1)
    CodeSearch(run_of_shards(tmp_path, 2))
    CodeSearch(run_of_shards(tmp_path, 3))
    CodeSearch(run_of_shards(tmp_path, 4))
    assert encoded == [[0], [1], [2], [0], [1], [2], [3]]


def test_folder_that_cannot_be_written_is_searched_too(tmp_path, is_approximate, encoded):
    run = run_of(tmp_path)
    (tmp_path / "codes/index").write_text("in the way")
    assert all(len(CodeSearch(run).nearest_to_rows([7], 5)[0]) == 5 for _ in range(2))
    assert encoded == [[0], [0]]


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays | {"positions": arrays["positions"] + 1},
        lambda arrays: arrays | {"positions": arrays["positions"] - 1},
        lambda arrays: arrays | {"positions": arrays["positions"][::-1].copy()},
        lambda arrays: arrays | {"positions": arrays["positions"].astype(np.int32)},
        lambda arrays: arrays | {"codes": arrays["codes"][:, :-1].copy()},
        lambda arrays: arrays | {"codes": arrays["codes"][:-1]},
        lambda arrays: arrays | {"codes": np.full_like(arrays["codes"], 255)},  # a list that is not there
        lambda arrays: {name: arrays[name] for name in ("codes", "identity")},
        lambda arrays: arrays | {"identity": arrays["identity"][::-1].copy()},
    ],
)
def test_damaged_parts_of_an_index_are_made_again(tmp_path, is_approximate, encoded, change):
    run = run_of(tmp_path)
    CodeSearch(run)
    (part,) = (tmp_path / "codes/index").glob("part-*")
    save_file(change(load_file(part)), part)
    assert len(CodeSearch(run).nearest_to_rows([7], 89)[0]) == 89 and encoded == [[0], [0]]


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays | {"centres": np.full_like(arrays["centres"], np.nan)},
        lambda arrays: arrays | {"centres": arrays["centres"][:, :-1].copy()},
        lambda arrays: arrays | {"centres": arrays["centres"][:0]},
        lambda arrays: arrays | {"ranges": arrays["ranges"][:-1]},
        lambda arrays: arrays | {"mean": arrays["mean"][:-1]},
        lambda arrays: arrays | {"components": np.zeros((3, 12), np.float32)},
        lambda arrays: arrays | {"components": np.zeros(12, np.float32)},
        lambda arrays: arrays | {"photos": np.zeros(2, np.int64)},
        lambda arrays: {name: array for name, array in arrays.items() if name != "ranges"},
    ],
)
def test_damaged_codec_is_made_again(tmp_path, is_approximate, encoded, change):
    run = run_of(tmp_path)
    CodeSearch(run)
    file = tmp_path / "codes" / codec.CODEC
    before = file.read_bytes()
    save_file(change(load_file(file)), file)
    assert len(CodeSearch(run).nearest_to_rows([7], 89)[0]) == 89
    assert file.read_bytes() == before


def test_files_that_are_no_index_are_not_read(tmp_path, is_approximate, encoded):
    run = run_of(tmp_path)
    CodeSearch(run)
    for file in (tmp_path / "codes/index").iterdir():
        file.write_bytes(b"\xff" * 100)
    CodeSearch(run)
    for file in (tmp_path / "codes/index").iterdir():
        os.truncate(file, 1 << 40)
    CodeSearch(run)
    assert encoded == [[0]] * 3
