"""A sample of an archive's photos without a label."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from codes_folder import labels, write_codes

from flowers_batch.classifier.unlabelled import find_codes, sample_unlabelled
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES
from flowers_batch.progress import NULL_REPORTER

NO_DIGESTS, NO_PATHS = pa.array([], pa.binary(32)), pa.array([], pa.string())


def test_codes_belong_to_the_photos_of_their_positions(tmp_path):
    folder = write_codes(tmp_path / "codes", labels(daisy=30, rose=30), batch=8, broken=(3, 17))
    rows = [row for row in pq.read_table(folder / "codes").to_pylist() if row["status"] == "ok"]
    wanted = ["no/photo.jpg", *(row["path"] for row in rows[50:10:-3]), "daisy/003.jpg"]
    positions, codes = find_codes(open_run(folder, CODES), pa.array(wanted))
    code_of = {row["path"]: row["code"] for row in rows}
    assert sorted(positions.tolist()) == list(range(1, len(wanted) - 1))
    expected = np.array([code_of[wanted[position]] for position in positions.tolist()], np.float16)
    assert (codes.take(np.arange(len(positions))) == expected).all()


def test_sample_is_a_part_of_any_larger_one_whatever_the_batches(tmp_path):
    samples = []
    for batch, count in ((None, 15), (7, 15), (7, 40)):
        folder = write_codes(tmp_path / f"{batch}-{count}", labels(daisy=50, rose=50), batch=batch)
        rows = sample_unlabelled(open_run(folder, CODES), count, NO_DIGESTS, NO_PATHS, NULL_REPORTER)
        assert len(rows) == count
        samples.append(rows["path"].to_pylist())
    assert samples[0] == samples[1] and set(samples[0]) < set(samples[2])


def test_sample_is_independent_of_the_split(tmp_path):
    folder = write_codes(tmp_path / "codes", labels(daisy=500, rose=500))
    rows = sample_unlabelled(open_run(folder, CODES), 300, NO_DIGESTS, NO_PATHS, NULL_REPORTER)
    in_test = np.array([digest[0] < 0.1 * 256 for digest in rows["sha256"].to_pylist()])  # `split_keys`
    assert 0.04 < in_test.mean() < 0.17
