"""The random order of an archive's photos."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from codes_folder import labels, write_codes

from flowers_batch.classifier.random_order import content_keys, random_order
from flowers_batch.dataset.run_folder import open_run
from flowers_batch.dataset.schema import CODES


def test_keys_are_the_ends_of_digests():
    digests = pa.array([bytes(24) + number.to_bytes(8, "big") for number in (5, 2**64 - 1, 7, 0)], pa.binary(32))
    assert content_keys(digests).tolist() == [5, 2**64 - 1, 7, 0]
    assert content_keys(digests[1:3]).tolist() == [2**64 - 1, 7] and not len(content_keys(digests[:0]))


def test_random_order_is_of_contents_and_begins_like_that_of_fewer(tmp_path):
    folder = write_codes(tmp_path / "codes", labels(daisy=60, rose=60), copies=30, broken=(3, 77), batch=7)
    run = open_run(folder, CODES)
    rows = random_order(run, 200).tolist()
    assert len(rows) == len(set(rows)) == 120 + 30 - 1 and not {3, 77} & set(rows)
    assert random_order(run, 15).tolist() == rows[:15]
    digests = pq.read_table(folder / "codes", columns=["sha256"])["sha256"].to_pylist()
    keys = [digests[row][-8:] for row in rows]
    assert keys == sorted(keys)
    assert 0.03 < np.mean([digests[row][0] < 0.1 * 256 for row in rows]) < 0.2, "it is independent of the split"
