"""Tests of one file share a worker, and so do all that share one Ray."""

from __future__ import annotations

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="tests run in one process")
def test_worker_runs_whole_groups_of_tests(request):
    assert request.node.nodeid.endswith(f"@{request.path}"), "pytest-xdist ignores the groups that tests are in"
