"""Fixtures for the pages: runs without Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def without_ray() -> Iterator[None]:
    """Encode and predict in this process."""
    from helpers import run_shards_here

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowers_batch.runs.execution.run_shards", run_shards_here)
        yield
