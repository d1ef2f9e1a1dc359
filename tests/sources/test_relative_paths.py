"""Paths that are relative to a folder of images and do not lead out of it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from flowers_batch.sources.relative_paths import are_relative, is_relative

BELOW = ["a/b.jpg", "..a/b", "a..", "a/..b", "...", "a/..\n", "//bytes/a%FF", "ü"]
OUTSIDE = ["", "/a", "a/", "a//b", ".", "..", "./a", "a/./b", "../a", "a/../b", "a/..", "a\0", "//byte/a", "//bytes/"]
OUTSIDE += ["//bytes/..%2Fa", "//bytes/a%2F..", "//bytes/%2Fetc", "//bytes//etc", "//bytes/a%00"]


@pytest.mark.parametrize(("paths", "expected"), [(BELOW, True), (OUTSIDE, False), ([*BELOW, *OUTSIDE], None)])
def test_paths_below_a_folder_are_told_from_others(paths, expected):
    assert are_relative(pa.array(paths)).to_pylist() == [is_relative(path) for path in paths]
    if expected is not None:
        assert all(is_relative(path) is expected for path in paths)
