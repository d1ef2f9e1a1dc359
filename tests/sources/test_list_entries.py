"""Paths that are entries of a list of any size."""

from __future__ import annotations

import pyarrow as pa

from flowers_batch.sources.list_entries import are_named


def test_paths_are_looked_up_in_a_list_of_any_size():
    names = [pa.array(["c", "x"]), pa.array(["a"]), pa.array([], pa.string())]
    for size in (1, 2, 100):
        found = are_named(pa.chunked_array([["a"], ["b", "c"]]), names, names_at_once=size)
        assert found.to_pylist() == [True, False, True]
    assert are_named(pa.array(["a"]), []).to_pylist() == [False]
