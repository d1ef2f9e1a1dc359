"""What runs inside an actor."""

from __future__ import annotations

import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from flowers_batch.cluster.actors import log_event
from flowers_batch.dataset.shard import Shard


class SlowStream(io.StringIO):
    """A stream that lets other threads run between two writes."""

    def write(self, text: str) -> int:
        time.sleep(0.002)
        return super().write(text)


def test_log_lines_of_concurrent_shards_do_not_mix(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream := SlowStream())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: log_event("done", Shard(number, 1, "")), range(20)))
    assert sorted(json.loads(line)["shard"] for line in stream.getvalue().splitlines()) == list(range(20))
