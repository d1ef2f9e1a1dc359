"""Samples and duplicates collected from the rows of a run."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from flowers_batch.pages.report.samples import Duplicates, Samples, ranks_of


def rows_of(paths: list[str], digests: list[bytes]) -> pa.RecordBatch:
    columns = [pa.array(paths), pa.array(digests, pa.binary(32)), pa.array([0.5] * len(paths), pa.float32())]
    return pa.RecordBatch.from_arrays(columns, ["path", "sha256", "probability"])


def test_samples_do_not_depend_on_batches():
    digests = [hashlib.sha256(b"%d" % number).digest() for number in range(300)]
    keys = np.array(["ab"[number % 2] for number in range(300)])
    found = []
    for size in (300, 7):
        samples = Samples(6)
        for start in range(0, 300, size):
            here = slice(start, start + size)
            rows = rows_of([str(number) for number in range(300)][here], digests[here])
            samples.add(keys[here], ranks_of(rows), rows)
        found.append([list(samples.captions(key)) for key in "ab"])
    assert found[0] == found[1]
    assert found[0][0] == sorted(map(str, range(0, 300, 2)), key=lambda name: digests[int(name)])[:6]


def test_duplicate_sets_are_complete_and_bounded():
    digests = [hashlib.sha256(b"%d" % (number % 400)).digest() for number in range(1000)]
    duplicates = Duplicates(20, 6)
    for start in range(0, 1000, 10):
        rows = rows_of([str(number) for number in range(start, start + 10)], digests[start : start + 10])
        duplicates.add(ranks_of(rows), rows)
    assert 5 < len(duplicates.sets) <= 20
    for found in duplicates.sets.values():
        complete = list(range(int(found.paths[0]), 1000, 400))
        assert [int(path) for path in found.paths] == complete and found.photos == len(complete)
