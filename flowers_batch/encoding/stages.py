"""Seconds spent in each stage of the work on a shard."""

from __future__ import annotations

Stages = dict[str, float]


def add_seconds(stages: Stages, name: str, seconds: float) -> None:
    """Add seconds to a stage."""
    stages[name] = stages.get(name, 0.0) + seconds
