"""A pool of actors without Ray, which answer in the way that a test scripts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import ray
from helpers import fingerprint

from flowers_batch.cluster.dispatch import Schedule
from flowers_batch.cluster.driver import ShardRun
from flowers_batch.cluster.messages import ActorInfo, Heartbeat, ShardJob, ShardResult
from flowers_batch.cluster.pool import ActorPool
from flowers_batch.cluster.totals import Totals
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.progress import Progress

DIES, STALLS = object(), object()  # what a scripted actor may do instead of answering
NODES = [{"NodeID": name, "Alive": True, "Resources": {"CPU": 8.0}} for name in ("here", "there")]


@dataclass(eq=False)
class Answer:
    """The answer of a scripted actor.

    Attributes:
        value: The answer; None for the usual one. `DIES`, `STALLS` or an exception are what it says.
        looks: How often it is looked for before it is there, a millisecond or more each time.
        moves: Whether the actor makes progress meanwhile.
    """

    value: Any = None
    looks: int = 0
    moves: bool = False

    def is_there(self) -> bool:
        self.looks -= 1
        return self.value is not STALLS and self.looks < 0


@dataclass(frozen=True)
class ScriptedFactory:
    """A factory whose actors behave as `behave` says, given the shard's number and how often it was dispatched."""

    behave: Callable[..., Any]
    wants_gpu = False

    def with_precision(self, precision: str) -> ScriptedFactory:
        return self


class ScriptedActor:
    """Stands in for Ray's handle of an actor, and for its methods."""

    def __init__(self, job: ShardJob, *others: Any):
        self._behave, self._step, self._answer = job.factory.behave, 0, Answer()
        self.start = SimpleNamespace(remote=lambda: Answer(ActorInfo(fingerprint(), "host", ())))
        self.heartbeat = SimpleNamespace(remote=self._heartbeat)
        self.run = SimpleNamespace(remote=self._work)

    def _heartbeat(self) -> Answer:
        self._step += self._answer.moves and self._answer.looks >= 0  # not once it is answered
        return Answer(Heartbeat("here", self._step))

    def _work(self, shard: Shard, attempt: int) -> Answer:
        found = self._behave(shard.number, attempt)
        self._answer = found if isinstance(found, Answer) else Answer(found)
        if self._answer.value is None:
            self._answer.value = ShardResult(Footer("", shard.number, "", 1, 0), {})
        return self._answer


def get(answer: Answer) -> Any:
    """Do what `ray.get` does."""
    if answer.value is DIES:
        raise ray.exceptions.ActorDiedError()
    if isinstance(answer.value, ray.exceptions.RayError):
        raise answer.value
    if isinstance(answer.value, Exception):
        raise ray.exceptions.RayTaskError("run", "", answer.value)
    return answer.value


def wait(answers: list[Answer], **options: Any) -> tuple[list[Answer], list[Answer]]:
    """Do what `ray.wait` does."""
    time.sleep(0.001)
    return [answer for answer in answers if answer.is_there()], []


def remote(**options: Any) -> Callable[..., Any]:
    """Do what `ray.remote` does."""
    actor = SimpleNamespace(remote=ScriptedActor)
    return lambda wrapped: SimpleNamespace(options=lambda **options: actor)


class Messages:
    """A reporter that keeps messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, sentence: str) -> None:
        self.messages.append(sentence)

    def update(self, progress: Progress) -> None:
        pass


def scripted_run(
    behave: Callable[..., Any], actors: int, shards: int, messages: Messages, poll_seconds: float = 0.001
) -> tuple[ShardRun, Schedule]:
    """A run whose actors are scripted, on shards of one image each."""
    config = SimpleNamespace(actors=actors, stall_timeout=0.1)
    pool = ActorPool(ShardJob(ScriptedFactory(behave), "", ""), config, False, lambda fingerprint: None)
    schedule = Schedule([Shard(number, 1, "") for number in range(shards)])
    return ShardRun(pool, schedule, Totals("", messages), poll_seconds), schedule


class Script:
    """Answers of actors to one shard, one after the other; they finish all other shards immediately.

    Attributes:
        calls: How often that shard was dispatched.
    """

    def __init__(self, shard: int, *answers: Any):
        self._shard, self._answers = shard, list(answers)
        self.calls = 0

    def __call__(self, shard: int, attempt: int) -> Any:
        if shard != self._shard:
            return None
        self.calls += 1
        assert attempt == self.calls
        return self._answers.pop(0) if self._answers else None


class Twice:
    """Answers to shards that are dispatched twice, `shard11=[first, second]`; all others are answered immediately."""

    def __init__(self, **answers: list[Answer]):
        self._answers = {int(name.removeprefix("shard")): each for name, each in answers.items()}
        self.times: Counter[int] = Counter()

    def __call__(self, shard: int, attempt: int) -> Any:
        self.times[shard] += 1
        return self._answers[shard].pop(0) if shard in self._answers else Answer(looks=1, moves=True)
