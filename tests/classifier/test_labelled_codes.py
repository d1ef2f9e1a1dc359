"""Codes in memory and on disk are the same, in order and shuffled."""

from __future__ import annotations

import numpy as np
import pytest
from codes_folder import WIDTH, labels, write_codes

import flowers_batch as fb
from flowers_batch.classifier.fitting import KINDS, LOGISTIC, fit, predict_logits
from flowers_batch.classifier.labelled_codes import (
    ROW_GROUPS_AHEAD,
    CodesInMemory,
    CodesOnDisk,
    LabelledCodes,
    available_memory,
    labelled_codes_of,
)
from flowers_batch.classifier.labelled_split import split_labelled
from flowers_batch.classifier.logistic import mean_squared_norm
from flowers_batch.classifier.model_folder import load_model
from flowers_batch.classifier.normalization import NORMALIZATIONS, fit_normalization
from flowers_batch.classifier.regression_choice import Regression
from flowers_batch.classifier.split import TRAIN, VALIDATION
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """Every third photo of a folder with many row groups, in which some photos have no code, and their true codes."""
    folder = tmp_path_factory.mktemp("on disk") / "codes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowers_batch.dataset.shard_file.ROWS_PER_GROUP", 16)
        write_codes(folder, labels(a=150, b=90), failed=7, batch=8, broken=(0, 17, 18, 100))
    run = open_run(folder, CODES)
    assert len(run.row_groups()) == 15
    rows = np.setdiff1d(np.arange(1, 233, 3), [100])
    labelled = LabelledCodes(CodesOnDisk(run, rows, 0), np.arange(len(rows)), rows % 2, rows)
    column = [code for batch in run.batches(["code"]) for code in batch["code"].to_pylist()]
    return labelled, np.array([column[row] for row in rows], np.float16), run


def test_codes_are_those_of_their_rows(on_disk):
    labelled, truth, _ = on_disk
    assert labelled.codes.width == WIDTH
    np.testing.assert_array_equal(labelled.array(), truth)
    part = labelled[np.arange(len(labelled)) % 4 == 1]
    np.testing.assert_array_equal(part.array(), truth[1::4])
    assert part.groups.tolist() == labelled.groups[1::4].tolist()
    assert len(labelled[np.zeros(len(labelled), bool)].array()) == 0


@pytest.mark.parametrize("chunk_size", [1, 20, 1000])
def test_chunks_hold_each_photo_once_with_its_code(on_disk, chunk_size):
    labelled, truth, _ = on_disk
    for kind in (labelled, labelled_codes_of(truth, labelled.targets)):
        for random in (None, np.random.default_rng(0)):
            found = list(kind.chunks(random, chunk_size))
            positions = np.concatenate([positions for positions, _ in found])
            np.testing.assert_array_equal(np.concatenate([codes for _, codes in found]), truth[positions])
            assert sorted(positions) == list(range(len(labelled)))
            assert (positions.tolist() == sorted(positions)) == (random is None)
            # A row group of 16 rows has at most 6 of the photos: a chunk holds at most one group too many.
            assert max(len(positions) for positions, _ in found) < chunk_size + 6


def test_shuffled_chunks_mix_the_folder_and_follow_the_seed(on_disk):
    labelled, *_ = on_disk
    orders = [np.concatenate([p for p, _ in labelled.chunks(np.random.default_rng(seed), 24)]) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert orders[0].tolist() != orders[2].tolist()
    first = next(iter(labelled.chunks(np.random.default_rng(1), 24)))[0]
    assert first.max() - first.min() > len(labelled) / 2


def test_codes_are_loaded_if_they_fit_in_memory(on_disk):
    labelled, truth, run = on_disk
    assert not labelled.loaded().is_in_memory
    rows = labelled.groups  # as the fixture has them
    fitting = LabelledCodes(CodesOnDisk(run, rows, 10**6), *(labelled.indices,) * 3)
    assert fitting.loaded().is_in_memory and isinstance(fitting.loaded().codes, CodesInMemory)
    np.testing.assert_array_equal(fitting.loaded().array(), truth)


def test_abandoned_reader_stops_reading(on_disk, monkeypatch):
    read = []
    read_shard = Run.read_shard
    monkeypatch.setattr(Run, "read_shard", lambda *asked: read.append(asked) or read_shard(*asked))
    labelled, *_ = on_disk
    for _ in labelled.chunks(chunk_size=1):
        break
    assert 1 <= len(read) <= 1 + ROW_GROUPS_AHEAD + 1


@pytest.fixture(scope="module")
def larger_than_memory(tmp_path_factory):
    """A codes folder whose training codes take more than the megabyte that a training may be allowed."""
    folder = tmp_path_factory.mktemp("larger") / "codes"
    return write_codes(folder, labels(a=200, b=200, c=200), spread=9, width=300)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_training_on_more_than_memory_is_as_good(larger_than_memory, tmp_path, kind):
    run = open_run(larger_than_memory, CODES)
    accuracies = {}
    for max_memory_mb in (None, 1):
        labelled = split_labelled(run, fb.TrainConfig(("folder",), max_memory_mb=max_memory_mb))
        train, validation = labelled.codes_of(TRAIN), labelled.codes_of(VALIDATION)
        assert train.is_in_memory == (max_memory_mb is None)
        streamed = fit(kind, train, validation, labelled.classes, 0)
        accuracies[max_memory_mb] = [
            (predict_logits(streamed.head, codes).argmax(1) == codes.targets).mean() for codes in (train, validation)
        ]
    assert streamed.epochs
    assert accuracies[1][0] == pytest.approx(accuracies[None][0], abs=0.05)
    assert accuracies[1][1] > accuracies[None][1] - 0.05
    metrics = fb.train(larger_than_memory, tmp_path / "again", fb.TrainConfig(("folder",), head=kind, max_memory_mb=1))
    assert metrics["heads"][kind]["epochs"] == streamed.epochs
    found = load_model(tmp_path / "again").head.arrays
    for name, array in streamed.head.arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.slow
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_streamed_regression_gives_the_same_probabilities(larger_than_memory, normalization):
    run = open_run(larger_than_memory, CODES)
    probabilities = []
    for max_memory_mb in (None, 1):
        labelled = split_labelled(run, fb.TrainConfig(("folder",), max_memory_mb=max_memory_mb))
        train, validation = labelled.codes_of(TRAIN), labelled.codes_of(VALIDATION)
        unit = mean_squared_norm(fit_normalization(normalization, train)(train.array()))
        fitted = fit(LOGISTIC, train, validation, labelled.classes, 0, Regression(normalization, 10 / unit))
        assert bool(fitted.epochs) == (max_memory_mb is not None)
        probabilities.append(fitted.head.probabilities(validation.array()))
    in_memory, streamed = probabilities
    assert np.abs(streamed - in_memory).mean() < 0.03  # early stopping, in place of the minimum
    assert np.abs(in_memory - 1 / 3).mean() > 0.1


def test_available_memory_is_plausible():
    assert 10**8 < available_memory() < 10**14
