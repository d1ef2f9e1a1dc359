"""Retries of shards whose actors die or stall, and when a run gives up; the actors are scripted."""

from __future__ import annotations

import pytest
import ray
from ray.exceptions import ActorDiedError, NodeDiedError, RayActorError, RayTaskError
from scripted_actors import DIES, NODES, STALLS, Script

import flowers_batch as fb
from flowers_batch.cluster.failures import ActorFailure, FailureTracker, failure_of
from flowers_batch.dataset.shard import Shard

DEATH = ActorFailure("its process was killed.")


def test_shard_of_two_deaths_is_retried_without_poison_images(scripted):
    poison = {"a.png": ("crashed_decoder", "It ended its process.")}
    script = Script(1, DIES, DIES, poison)
    result, messages = scripted(script)
    seconds = pytest.approx(0.1 / 4)
    assert script.calls == [("run", {}), ("run", {}), ("find_poison_images", seconds), ("run", poison)]
    assert (len(result.footers), result.deaths, result.stalls) == (3, 2, 0)
    assert any("on shard 1: its images are tried one by one" in sentence for sentence in messages)
    assert "a.png becomes a failed row (crashed_decoder): It ended its process." in messages


def test_images_are_isolated_after_the_first_stall(scripted):
    script = Script(1, STALLS, {})
    result, messages = scripted(script)
    assert script.methods == ["run", "find_poison_images", "run"]
    assert (len(result.footers), result.deaths, result.stalls) == (3, 0, 1)
    assert "An actor was killed: it made no progress for 0.1 seconds. Its shards are retried." in messages


def test_five_deaths_on_a_shard_without_poison_images_end_the_run(scripted):
    script = Script(1, DIES, DIES, {}, DIES, STALLS, DIES)
    with pytest.raises(fb.RunError, match=r"5 actors died on shard 1, and none of its images is to blame\. Cause"):
        scripted(script)
    assert script.methods.count("find_poison_images") == 1


def test_deaths_while_images_are_isolated_count_too(scripted):
    with pytest.raises(fb.RunError, match=r"5 actors died on shard 1\. Cause"):
        scripted(Script(1, DIES, DIES, DIES, STALLS, DIES))


def test_deaths_count_from_zero_once_poison_images_are_found(scripted):
    poison = {"a.png": ("timeout", "It took too long.")}
    result, _ = scripted(Script(1, DIES, DIES, DIES, DIES, poison, DIES, DIES, DIES, DIES))
    assert result.deaths == 8 and len(result.footers) == 3


def test_deaths_with_their_node_do_not_count_against_a_shard(scripted, monkeypatch):
    """Also deaths of actors whose node is not known yet."""
    monkeypatch.setattr(ray, "nodes", lambda: [NODES[0] | {"Alive": False}, NODES[1]])
    script = Script(1, *[DIES] * 9)
    result, _ = scripted(script, poll_seconds=0.05)
    assert result.deaths == 9 and set(script.methods) == {"run"}


@pytest.mark.parametrize("error", [RayActorError(preempted=True), NodeDiedError("")], ids=["preempted", "node died"])
def test_preemption_does_not_count_against_a_shard(scripted, error):
    """Even if `ray.nodes()` does not list the node as dead yet."""
    script = Script(1, *[error] * 9)
    result, _ = scripted(script)
    assert result.deaths == 9 and set(script.methods) == {"run"}


def test_death_does_not_count_against_a_finished_shard(scripted):
    """The actor's answer to the first shard and its death on the second are seen at the same time."""
    script = Script(1, DIES, DIES, {"a.png": ("crashed_decoder", "")})
    result, _ = scripted(script, shards=2)
    assert script.methods == ["run", "run", "find_poison_images", "run"]
    assert sorted(result.footers) == [0, 1]


def test_number_of_deaths_that_end_a_run_is_a_parameter():
    failures = FailureTracker(max_deaths=3)
    for _ in range(2):
        failures.record(DEATH, "node", [7], set())
    assert failures.needs_isolation(Shard(7, 1, "")) and not failures.is_suspect(Shard(8, 1, ""))
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
