"""Retries of shards whose actors die or stall, and when a run gives up; the actors are scripted."""

from __future__ import annotations

import pytest
import ray
from ray.exceptions import ActorDiedError, NodeDiedError, RayActorError, RayTaskError
from scripted_actors import DIES, NODES, STALLS, Messages, Script, scripted_run

import flowers_batch as fb
from flowers_batch.cluster.failures import MAX_ACTOR_DEATHS, ActorFailure, FailureTracker, failure_of
from flowers_batch.dataset.shard import Shard

DEATH = ActorFailure("its process was killed.")


def test_shards_of_an_actor_that_dies_or_stalls_are_retried(scripted):
    script = Script(1, DIES, STALLS, DIES, STALLS)
    result, messages = scripted(script)
    assert script.calls == 5
    assert (len(result.footers), result.deaths, result.stalls) == (3, 2, 2)
    assert "An actor was killed: it made no progress for 0.1 seconds. Its shards are retried." in messages
    assert sum(sentence.startswith("An actor died: ") for sentence in messages) == 2


def test_five_deaths_or_stalls_on_a_shard_end_the_run(scripted):
    script = Script(1, DIES, DIES, STALLS, DIES, DIES, None)
    with pytest.raises(fb.RunError, match=r"^5 actors died on shard 1\. Cause of the last: .* to resume\.$"):
        scripted(script)
    assert script.calls == 5


def test_deaths_with_their_node_do_not_count_against_a_shard(scripted, monkeypatch):
    """Also deaths of actors whose node is not known yet."""
    monkeypatch.setattr(ray, "nodes", lambda: [NODES[0] | {"Alive": False}, NODES[1]])
    script = Script(1, *[DIES] * 9)
    result, _ = scripted(script, poll_seconds=0.05)
    assert result.deaths == 9 and script.calls == 10


@pytest.mark.parametrize("error", [RayActorError(preempted=True), NodeDiedError("")], ids=["preempted", "node died"])
def test_preemption_does_not_count_against_a_shard(scripted, error):
    """Even if `ray.nodes()` does not list the node as dead yet."""
    script = Script(1, *[error] * 9)
    result, _ = scripted(script)
    assert result.deaths == 9 and script.calls == 10


def test_death_does_not_count_against_a_finished_shard(scripted):
    """Another actor has finished shard 0 before the fifth one dies on it."""
    run, schedule = scripted_run(lambda shard, attempt: DIES, 1, 2, Messages())
    with pytest.raises(fb.RunError, match=r"^5 actors died on shard 1\."):
        while schedule.attempts[1] <= MAX_ACTOR_DEATHS:
            run.scale()
            run.take_answers()
            run.dispatch()
            if schedule.attempts[0] == MAX_ACTOR_DEATHS:
                schedule.finish(Shard(0, 1, ""))


def test_number_of_deaths_that_end_a_run_is_a_parameter():
    failures = FailureTracker(max_deaths=3)
    for _ in range(2):
        failures.record(DEATH, "node", [7, 8], set())
    failures.record(DEATH, "node", [9], set())
    with pytest.raises(
        fb.RunError, match=r"3 actors died on shard 7\. Cause of the last: its process was killed\. Run"
    ):
        failures.record(DEATH, "node", [7], set())


def test_deaths_of_starting_actors_count_in_a_row():
    failures = FailureTracker(max_deaths=2)
    failures.record(DEATH, None, [None], set())
    failures.actor_started()
    failures.record(DEATH, None, [None], set())
    with pytest.raises(fb.RunError, match="2 actors died while they started"):
        failures.record(DEATH, None, [None], set())


def test_actor_that_cannot_be_created_ends_the_run():
    death = ActorDiedError(RayTaskError("__init__", "ModuleNotFoundError: No module named 'x'", ImportError("x")))
    with pytest.raises(fb.RunError, match=r"could not be created: .*Install the same packages on all nodes"):
        failure_of(death)
