"""`_SUCCESS`, and reading finished runs."""

from __future__ import annotations

import pytest
from dataset_rows import codes_batch, finished, labelled, predictions_batch

from flowers_batch.dataset.run_folder import SUCCESS, open_run
from flowers_batch.dataset.schema import CODES, PREDICTIONS
from flowers_batch.errors import InputError


def test_finished_run_is_opened_and_streams_its_rows_in_order(tmp_path):
    shards = [codes_batch(4), codes_batch(4), codes_batch(3)]
    run = open_run(str(finished(tmp_path, CODES, shards)), CODES)
    assert run.shards == 3
    rows = [path for batch in run.batches(["path"]) for path in batch["path"].to_pylist()]
    assert rows == [path for batch in shards for path in batch["path"].to_pylist()]


def test_unfinished_run_is_refused_in_a_sentence(tmp_path):
    finished(tmp_path, CODES, [codes_batch(1)])
    (tmp_path / SUCCESS).unlink()
    with pytest.raises(InputError, match=r"is not finished: run the same `flowers-batch encode` again, which resumes"):
        open_run(str(tmp_path), CODES)


def test_foreign_folder_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    for where in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"is not a folder of codes: make one with `flowers-batch encode`\.$"):
            open_run(str(where), CODES)


def test_folder_of_the_other_kind_is_refused_in_a_sentence(tmp_path):
    finished(tmp_path / "codes", CODES, [codes_batch(1)])
    finished(tmp_path / "predictions", PREDICTIONS, [predictions_batch([labelled("a.jpg")])])
    with pytest.raises(InputError, match=r"is not a folder of predictions: make one with `flowers-batch predict`\.$"):
        open_run(str(tmp_path / "codes"), PREDICTIONS)
    with pytest.raises(InputError, match=r"is not a folder of codes"):
        open_run(str(tmp_path / "predictions"), CODES)


def test_file_in_place_of_a_runs_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder of codes"):
        open_run(str(tmp_path / "file"), CODES)
