from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import ending_feeds


@pytest.fixture(autouse=True)
def _no_decode_workers_are_left() -> Iterator[None]:
    with ending_feeds():
        yield
