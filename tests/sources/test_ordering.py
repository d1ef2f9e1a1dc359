from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from datetime import UTC
from itertools import chain, pairwise

import pyarrow as pa
import pytest
from helpers import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowers_batch.errors import RunError
from flowers_batch.sources import ordering
from flowers_batch.sources.images import TIME, path_bytes, path_text
from flowers_batch.sources.ordering import (
    aligned,
    are_in_path_order,
    batches_in_order,
    merged,
    sorted_rows,
    unique_names,
    without_repeats,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SIZE = st.integers(-(1 << 63), (1 << 63) - 1)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text takes seconds on a busy machine
@given(st.lists(st.tuples(st.binary(max_size=8), SIZE, TEXT)))
def test_sorted_rows_equals_sorted(rows):
    assert list(sorted_rows(rows)) == sorted(rows)


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """As tuples these rows take 30 MB; the sorter's bound is set to 1 MB, so that a small number of rows shows it."""
    script = """
import random, resource
from flowers_batch.sources import ordering
draw = random.Random(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
last = b""
rows = ((draw.randbytes(400), number) for number in range(60_000))
for name, _ in ordering.sorted_rows(rows, memory_kib=1024):
    assert last <= name
    last = name
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    command, environment = [sys.executable, "-c", script], os.environ | {"TMPDIR": str(tmp_path)}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert int(found.stdout) < 8


@given(st.lists(st.text("x#2", max_size=4).map(str.encode), max_size=30))
def test_unique_names_are_unique_for_any_names(names):
    with unique_names() as unique:
        given = [unique.unique(name) for name in names]
    assert len(set(given)) == len(names)
    assert all(new.startswith(name) for new, name in zip(given, names, strict=True))
    firsts = [names.index(name) for name in set(names)]
    assert sum(given[first] == names[first] for first in firsts) >= len({n for n in names if b"#" not in n})


def test_repeats_are_numbered_and_avoid_literal_names():
    with unique_names() as names:
        assert [names.unique(name) for name in (b"x", b"x", b"x")] == [b"x", b"x#2", b"x#3"]
        assert [names.unique(name) for name in (b"y", b"y#2", b"y")] == [b"y", b"y#2", b"y#2#2"]


ROW = pa.schema([("path", pa.string()), ("raw", pa.binary()), ("n", pa.int32()), ("t", TIME), ("b", pa.bool_())])


def nullable(values):
    return st.none() | values


@given(
    st.lists(
        st.tuples(
            nullable(TEXT),
            nullable(st.binary(max_size=4)),
            nullable(st.integers(-9, 9)),
            nullable(st.datetimes(timezones=st.just(UTC))),
            nullable(st.booleans()),
        )
    ),
    st.integers(1, 5),
)
def test_batches_are_sorted_by_key_then_columns_and_keep_types(rows, size):
    batches = [
        pa.RecordBatch.from_pylist([dict(zip(ROW.names, row, strict=True)) for row in rows[start : start + size]], ROW)
        for start in range(0, len(rows), size)
    ]
    found = list(batches_in_order(batches, lambda batch: [batch["n"]]))
    assert all(batch.schema == ROW for batch in found)

    def key(row):  # None comes first; text in the order of its bytes
        n, (path, *others) = row[2], row
        texts = [path if path is None else path.encode(), *others]
        return [(value is not None, value) for value in (n, *texts)]

    expected = sorted(rows, key=lambda row: [(has, value if has else 0) for has, value in key(row)])
    assert [tuple(row.values()) for batch in found for row in batch.to_pylist()] == expected


def in_batches(paths: list[str], size: int) -> list[pa.RecordBatch]:
    """Batches of a column `path`, the last of which may be shorter; some without rows stand between them."""
    slices = [paths[start : start + size] for start in range(0, len(paths), size)]
    return [pa.record_batch({"path": pa.array(part, pa.string())}) for some in slices for part in (some, [])]


PATH = st.text("aé/😀", max_size=3) | st.binary(max_size=2).map(path_text)
SMALL = st.integers(1, 4)


@given(st.lists(PATH, max_size=9), SMALL, st.booleans())
def test_order_is_noticed_across_batches_and_is_that_of_the_bytes(paths, size, is_sorted):
    paths = sorted(paths, key=path_bytes) if is_sorted else paths
    names = [path_bytes(path) for path in paths]
    assert are_in_path_order(in_batches(paths, size)) == (names == sorted(names))


def test_name_not_utf8_is_ordered_by_its_bytes():
    paths = ["a.jpg", "//bytes/caf%E9.jpg", "z.jpg"]
    assert are_in_path_order(in_batches(paths, 1)) and paths != sorted(paths)
    assert not are_in_path_order(in_batches(sorted(paths), 3))


@given(st.lists(PATH, max_size=9), SMALL)
def test_repeats_are_dropped_across_batches_and_counted(paths, size):
    paths = sorted(paths, key=path_bytes)
    found = list(without_repeats(in_batches(paths, size)))
    kept = [path for batch, _ in found for path in batch["path"].to_pylist()]
    assert kept == sorted(set(paths), key=path_bytes)
    assert sum(dropped for _, dropped in found) == len(paths) - len(kept)


@given(st.lists(st.tuples(st.sets(PATH, max_size=9), SMALL), max_size=4))
def test_streams_are_cut_at_the_same_paths_and_merged(streams):
    ordered = [sorted(paths, key=path_bytes) for paths, _ in streams]
    schema = pa.schema([("path", pa.string())])
    batches = [in_batches(paths, size) for paths, (_, size) in zip(ordered, streams, strict=True)]
    steps = [[batch["path"].to_pylist() for batch in step] for step in aligned(batches, [schema] * len(streams))]
    assert [list(chain(*parts)) for parts in zip(*steps, strict=True)] == (ordered if steps else [])
    spans = [sorted(map(path_bytes, chain(*step))) for step in steps]
    assert all(spans) and all(before[-1] < after[0] for before, after in pairwise(spans))
    together = [path for batch in merged(batches, schema) for path in batch["path"].to_pylist()]
    assert together == sorted(chain(*ordered), key=path_bytes)


def test_full_disk_is_reported_in_a_sentence(monkeypatch):
    class Full(sqlite3.Connection):
        def executemany(self, *_):
            raise sqlite3.OperationalError("database or disk is full")

    connect = sqlite3.connect
    monkeypatch.setattr(ordering.sqlite3, "connect", lambda name: connect(name, factory=Full))
    with pytest.raises(RunError, match=r"^The images cannot be sorted \(database or disk is full\): set TMPDIR"):
        list(sorted_rows([(1,)]))


def test_nothing_sorts_to_nothing():
    assert list(sorted_rows([])) == []
