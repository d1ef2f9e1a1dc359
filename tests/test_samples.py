"""Codes are the same in memory and on disk, in order and shuffled."""

from __future__ import annotations

import numpy as np
import pytest
from codes_folder import WIDTH, labels, write_codes

import flowers_batch as fb
from flowers_batch.classifier import labelled_codes
from flowers_batch.classifier.labelled_codes import CodesInMemory, CodesOnDisk, LabelledCodes, free_memory, sample_of
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.dataset.shard_file import read_shard


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """Every third photo of a folder of many row groups, some of whose photos have no code, and their true codes."""
    monkeypatch.setattr("flowers_batch.dataset.shard_file.ROWS_A_GROUP", 16)
    run = open_run(
        write_codes(tmp_path / "codes", labels(a=150, b=90), failed=7, batch=8, broken=(0, 17, 18, 100)), CODES
    )
    assert len(run.row_groups()) == 15
    rows = np.setdiff1d(np.arange(1, 233, 3), [100])
    sample = LabelledCodes(CodesOnDisk(run, rows, 0), np.arange(len(rows)), rows % 2, rows)
    column = [code for batch in run.batches(["code"]) for code in batch["code"].to_pylist()]
    return sample, np.array([column[row] for row in rows], np.float16)


def test_codes_are_those_of_their_rows(on_disk):
    sample, truth = on_disk
    assert sample.codes.width == WIDTH
    np.testing.assert_array_equal(sample.array(), truth)
    part = sample[np.arange(len(sample)) % 4 == 1]
    np.testing.assert_array_equal(part.array(), truth[1::4])
    assert part.groups.tolist() == sample.groups[1::4].tolist()
    assert len(sample[np.zeros(len(sample), bool)].array()) == 0


@pytest.mark.parametrize("chunk", [1, 20, 1000])
def test_chunks_hold_each_photo_once_and_its_own_code(on_disk, monkeypatch, chunk):
    monkeypatch.setattr(labelled_codes, "_CHUNK", chunk)
    sample, truth = on_disk
    for kind in (sample, sample_of(truth, sample.targets)):
        for random in (None, np.random.default_rng(0)):
            found = list(kind.chunks(random))
            positions = np.concatenate([positions for positions, _ in found])
            np.testing.assert_array_equal(np.concatenate([codes for _, codes in found]), truth[positions])
            assert sorted(positions) == list(range(len(sample)))
            assert (positions.tolist() == sorted(positions)) == (random is None)
            # Row groups of 16 rows have at most 6 of the photos: no more is held than one of them too many.
            assert max(len(positions) for positions, _ in found) < chunk + 6


def test_shuffled_chunks_mix_the_folder_and_follow_the_seed(on_disk, monkeypatch):
    monkeypatch.setattr(labelled_codes, "_CHUNK", 24)
    sample, _ = on_disk
    orders = [np.concatenate([p for p, _ in sample.chunks(np.random.default_rng(seed))]) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert orders[0].tolist() != orders[2].tolist()
    first = next(iter(sample.chunks(np.random.default_rng(1))))[0]
    assert first.max() - first.min() > len(sample) / 2


def test_codes_are_loaded_where_they_fit(on_disk):
    sample, truth = on_disk
    assert not sample.loaded().is_in_memory
    roomy = LabelledCodes(CodesOnDisk(sample.codes._run, sample.codes._rows, 10**6), *(sample.numbers,) * 3)
    assert roomy.loaded().is_in_memory and isinstance(roomy.loaded().codes, CodesInMemory)
    np.testing.assert_array_equal(roomy.loaded().array(), truth)


def test_a_reader_that_is_given_up_reads_no_more(on_disk, monkeypatch):
    monkeypatch.setattr(labelled_codes, "_CHUNK", 1)
    read = []
    monkeypatch.setattr(labelled_codes, "read_shard", lambda *asked: read.append(asked) or read_shard(*asked))
    sample, _ = on_disk
    for _ in sample.chunks():
        break
    assert 1 <= len(read) <= 1 + labelled_codes._GROUPS_AHEAD + 1


@pytest.mark.parametrize("head", ["logistic", "mlp"])
def test_training_on_more_than_memory_is_as_good(tmp_path, monkeypatch, head):
    codes = write_codes(tmp_path / "codes", labels(a=400, b=400, c=400), spread=3)
    held = fb.train(codes, tmp_path / "held", fb.TrainConfig(head=head))
    monkeypatch.setattr(labelled_codes, "_BYTES", 10**9)
    streamed = fb.train(codes, tmp_path / "streamed", fb.TrainConfig(head=head))
    assert streamed["photos"] == held["photos"]
    assert streamed["validation"]["accuracy"] > held["validation"]["accuracy"] - 0.05
    assert streamed["train"]["accuracy"] == pytest.approx(held["train"]["accuracy"], abs=0.05)
    assert streamed["heads"][head]["epochs"]
    again = fb.train(codes, tmp_path / "again", fb.TrainConfig(head=head))
    assert again | {"seconds": 0} == streamed | {"seconds": 0}


def test_free_memory_is_less_than_there_is():
    assert 10**8 < free_memory() < 10**14
