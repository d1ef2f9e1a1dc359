"""Fixtures of the tests of runs without Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ray
import scripted_actors
from scripted_actors import NODES, Messages, scripted_run

from flowers_batch.cluster.messages import PoolResult


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[PoolResult, list[str]]]:
    """Runs shards on scripted actors; gives the result and the messages."""
    for name in ("get", "wait", "remote"):
        monkeypatch.setattr(ray, name, getattr(scripted_actors, name))
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    monkeypatch.setattr(ray, "nodes", lambda: NODES)

    def run(behave: Callable[..., Any], actors: int = 1, shards: int = 3, **options: Any) -> Any:
        messages = Messages()
        shard_run, _ = scripted_run(behave, actors, shards, messages, **options)
        return shard_run.run(), messages.messages

    return run
