"""A sample of an archive's photos without a label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from codes_folder import labels, write_codes

from flowers_batch.classifier import unlabelled
from flowers_batch.classifier.unlabelled import find_codes, sample_unlabelled
from flowers_batch.dataset.run_folder import Run, open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.progress import NULL_REPORTER

NO_DIGESTS, NO_PATHS = pa.array([], pa.binary(32)), pa.array([], pa.string())


def batches_of(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs yield batches of at most so many rows, as those of many shards do."""
    whole = Run.batches

    def batches(self: Run, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for batch in whole(self, columns):
            yield from (batch.slice(start, rows) for start in range(0, len(batch), rows))

    monkeypatch.setattr(Run, "batches", batches)


def test_codes_belong_to_the_photos_of_their_positions(tmp_path, monkeypatch):
    batches_of(8, monkeypatch)
    folder = write_codes(tmp_path / "codes", labels(daisy=30, rose=30), broken=(3, 17))
    rows = [row for row in pq.read_table(folder / "codes").to_pylist() if row["status"] == "ok"]
    wanted = ["no/photo.jpg", *(row["path"] for row in rows[50:10:-3]), "daisy/003.jpg"]
    positions, codes = find_codes(open_run(folder, CODES), pa.array(wanted))
    code_of = {row["path"]: row["code"] for row in rows}
    assert sorted(positions.tolist()) == list(range(1, len(wanted) - 1))
    expected = np.array([code_of[wanted[position]] for position in positions.tolist()], np.float16)
    assert (codes.take(np.arange(len(positions))) == expected).all()


def test_sample_is_a_part_of_any_larger_one_whatever_the_batches(tmp_path, monkeypatch):
    run = open_run(write_codes(tmp_path / "codes", labels(daisy=50, rose=50)), CODES)

    def sample(count: int) -> list[str]:
        return sample_unlabelled(run, count, NO_DIGESTS, NO_PATHS, NULL_REPORTER)["path"].to_pylist()

    at_once, larger = sample(15), sample(40)
    batches_of(7, monkeypatch)
    assert sample(15) == at_once and len(at_once) == 15
    assert set(at_once) < set(larger) and len(larger) == 40


def test_rows_in_memory_do_not_grow_with_the_archive(tmp_path, monkeypatch):
    run = open_run(write_codes(tmp_path / "codes", labels(daisy=200, rose=200)), CODES)
    batches_of(7, monkeypatch)
    held, choose = list[int](), unlabelled._sample_by_content
    monkeypatch.setattr(
        unlabelled, "_sample_by_content", lambda rows, count: held.append(len(rows)) or choose(rows, count)
    )
    sample_unlabelled(run, 15, NO_DIGESTS, NO_PATHS, NULL_REPORTER)
    assert max(held) <= 2 * 15 + 7


def test_sample_is_independent_of_the_split(tmp_path):
    folder = write_codes(tmp_path / "codes", labels(daisy=500, rose=500))
    rows = sample_unlabelled(open_run(folder, CODES), 300, NO_DIGESTS, NO_PATHS, NULL_REPORTER)
    in_test = np.array([digest[0] < 0.1 * 256 for digest in rows["sha256"].to_pylist()])  # `split_keys`
    assert 0.04 < in_test.mean() < 0.17
