from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowers_batch import sorting
from flowers_batch.config import RunError
from flowers_batch.sorting import in_order, microseconds, time_of, unique_names

ROOT = Path(__file__).parent.parent
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SIZE = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.lists(st.tuples(st.binary(max_size=8), SIZE, TEXT)))
def test_rows_come_as_sorted_has_them(rows):
    assert list(in_order(rows)) == sorted(rows)


def test_times_are_kept_to_the_microsecond():
    time = datetime(2024, 5, 1, 12, 0, 0, 123457, UTC)
    assert time_of(microseconds(time)) == time


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """As tuples these rows take 30 MB; the sorter's bound is set to 1 MB, so that a small number of rows shows it."""
    script = """
import random, resource
from flowers_batch import sorting
sorting._MEMORY_KIB = 1024
draw = random.Random(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
last = b""
for name, _ in sorting.in_order((draw.randbytes(400), number) for number in range(60_000)):
    assert last <= name
    last = name
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    command, environment = [sys.executable, "-c", script], os.environ | {"TMPDIR": str(tmp_path)}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert int(found.stdout) < 8


@given(st.lists(st.text("x#2", max_size=4).map(str.encode), max_size=30))
def test_no_name_is_given_twice_whatever_names_there_are(names):
    with unique_names() as unique:
        given = [unique.unique(name) for name in names]
    assert len(set(given)) == len(names)
    assert all(new.startswith(name) for new, name in zip(given, names, strict=True))
    firsts = [names.index(name) for name in set(names)]
    assert sum(given[first] == names[first] for first in firsts) >= len({n for n in names if b"#" not in n})


def test_repeats_are_numbered_and_a_name_that_stands_there_literally_is_left_alone():
    with unique_names() as names:
        assert [names.unique(name) for name in (b"x", b"x", b"x")] == [b"x", b"x#2", b"x#3"]
        assert [names.unique(name) for name in (b"y", b"y#2", b"y")] == [b"y", b"y#2", b"y#2#2"]


def test_full_disk_is_told_in_a_sentence(monkeypatch):
    class Full(sqlite3.Connection):
        def executemany(self, *_):
            raise sqlite3.OperationalError("database or disk is full")

    connect = sqlite3.connect
    monkeypatch.setattr(sorting.sqlite3, "connect", lambda name: connect(name, factory=Full))
    with pytest.raises(RunError, match=r"^The images cannot be sorted \(database or disk is full\): set TMPDIR"):
        list(in_order([(1,)]))


def test_nothing_sorts_to_nothing():
    assert list(in_order([])) == []
