"""Which actor gets which shard, and how stragglers are found; the actors are scripted."""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
from scripted_actors import DIES, STALLS, Answer, Messages, Script, Twice, scripted_run

from flowers_batch.cluster.dispatch import Schedule, Task
from flowers_batch.cluster.pool import PooledActor
from flowers_batch.cluster.scaling import Resources
from flowers_batch.dataset.shard import Shard


def test_every_actor_gets_a_shard_before_any_gets_a_second(scripted):
    def shards_per_actor(actors: int, shards: int) -> list[int]:
        run, schedule = scripted_run(lambda *called: STALLS, actors, shards, Messages())
        run.scale()
        run.take_answers()
        run.dispatch()
        return sorted(Counter(task.actor for task in schedule.tasks.values()).values())

    assert shards_per_actor(actors=3, shards=4) == [1, 1, 2]
    assert shards_per_actor(actors=2, shards=9) == [2, 2]


def test_shard_that_later_shards_overtake_is_retried_at_the_end(scripted):
    """Its actor makes progress with the other shards until there are none left."""
    result, _ = scripted(lambda shard, attempt: STALLS if (shard, attempt) == (0, 1) else Answer(looks=20, moves=True))
    assert result.stalls == 1 and len(result.footers) == 3


def test_time_without_work_is_no_stall(scripted):
    """If the actor of the only shard dies after a while, the idle actor takes it over."""
    result, _ = scripted(Script(0, Answer(DIES, looks=300, moves=True), Answer(looks=20)), actors=2, shards=1)
    assert (result.deaths, result.stalls, len(result.footers)) == (1, 0, 1)


def test_idle_actor_re_runs_the_shard_of_a_straggler(scripted):
    twice = Twice(shard11=[Answer(looks=10**6, moves=True), Answer(looks=1)])
    result, _ = scripted(twice, actors=2, shards=12)
    assert sorted(result.footers) == list(range(12)) and result.stalls == 0
    assert twice.times[11] == 2 and sum(twice.times.values()) == 13


@pytest.mark.parametrize("end", [DIES, OSError("its old file is gone")], ids=["dies", "fails"])
def test_failure_of_the_slower_copy_of_a_shard_changes_nothing(scripted, end):
    long = [Answer(looks=500, moves=True), Answer(looks=10**6, moves=True)]  # so that the run continues meanwhile
    twice = Twice(shard11=[Answer(end, looks=200, moves=True), Answer(looks=5)], shard10=long)
    result, _ = scripted(twice, actors=3, shards=12)
    assert sorted(result.footers) == list(range(12))
    assert twice.times[11] == 2 and result.deaths == (end is DIES)


def test_answer_for_a_shard_is_needed_from_the_last_copy_only():
    schedule, shard = Schedule([Shard(0, 1, "")]), Shard(0, 1, "")
    first, second = (Task(PooledActor(None, Resources(0, 1), None), shard) for _ in range(2))
    schedule.tasks = {"first": first, "second": second}
    assert not schedule.is_needed(first) and not schedule.is_needed(second)
    schedule.take("first")
    assert schedule.is_needed(second)
    schedule.finish(shard)
    assert not schedule.is_needed(second)


def test_actors_that_started_together_re_run_nothing(scripted):
    twice = Twice(shard0=[Answer(looks=60, moves=True)], shard1=[Answer(looks=30, moves=True)])
    scripted(twice, actors=2, shards=2)
    assert twice.times == {0: 1, 1: 1}


def test_suspended_driver_considers_no_actor_stalled(scripted, monkeypatch):
    hours = itertools.count(0.0, 3600.0)
    monkeypatch.setattr("flowers_batch.cluster.driver.time", SimpleNamespace(monotonic=lambda: next(hours)))
    result, _ = scripted(Script(1, Answer(looks=8)))
    assert result.stalls == 0 and len(result.footers) == 3
