"""Versions of Ray that would not heed the restrictions of a local Ray."""

from __future__ import annotations

import os

import pytest
import ray

from flowers_batch.cluster.restricted_access import restricted_access
from flowers_batch.errors import RunError


def test_ray_that_would_not_listen_on_loopback_is_refused(monkeypatch):
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "192.0.2.2")
    before = dict(os.environ)
    sentence = r"^Ray \S+ would let other users and machines use this run: install a version that"
    with pytest.raises(RunError, match=sentence), restricted_access():
        raise AssertionError("the block is not entered")
    assert dict(os.environ) == before
