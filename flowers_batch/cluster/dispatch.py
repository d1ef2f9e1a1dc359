"""Which shard an actor works on next: a queue, and speculative execution at its end."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowers_batch.cluster.pool import SHARDS_PER_ACTOR, PooledActor
from flowers_batch.dataset.shard import Shard

MAX_COPIES_IN_FLIGHT = 2  # actors that work on the same shard, once no other shards wait
SPECULATION_FACTOR = 0.8  # a shard is re-run on an actor that should need less than this share of the time left

Assignment = tuple[PooledActor, Shard]


@dataclass(frozen=True)
class Task:
    """A call of an actor that is not yet answered.

    Attributes:
        actor: The actor.
        shard: The shard that it works on; None while it starts.
        called: When, by `time.monotonic`.
    """

    actor: PooledActor
    shard: Shard | None = None
    called: float = field(default_factory=time.monotonic)

    @property
    def number(self) -> int | None:
        """The shard's number."""
        return self.shard.number if self.shard else None


class Schedule:
    """The shards of a run: which wait, which are in flight, and which are unfinished.

    Args:
        shards: All of them.
        max_copies: How many actors may work on the same shard.

    Attributes:
        waiting: Shards that no actor works on, in order.
        unfinished: Numbers of the shards that no actor has finished.
        tasks: Unanswered calls by Ray's reference of the answer, in the order of calling.
        attempts: How often each shard was dispatched, by number.
    """

    def __init__(self, shards: Sequence[Shard], max_copies: int = MAX_COPIES_IN_FLIGHT):
        self.waiting = deque(shards)
        self.unfinished = {shard.number for shard in shards}
        self.tasks: dict[Any, Task] = {}
        self.attempts: Counter[int] = Counter()
        self._finished_images: Counter[PooledActor] = Counter()
        self._max_copies = max_copies

    def busy_actors(self) -> set[PooledActor]:
        """Return the actors that work on shards."""
        return {task.actor for task in self.tasks.values() if task.shard}

    def tasks_of(self, actor: PooledActor) -> list[Task]:
        """Return an actor's unanswered calls."""
        return [task for task in self.tasks.values() if task.actor is actor]

    def is_unfinished(self, task: Task) -> bool:
        """Return whether a task is a start, or its shard is unfinished."""
        return task.shard is None or task.number in self.unfinished

    def is_needed(self, task: Task) -> bool:
        """Return whether a task's answer matters: no other actor has finished its shard, or works on it, too."""
        others = {other.number for other in self.tasks.values() if other is not task and other.shard}
        return self.is_unfinished(task) and task.number not in others

    def take(self, reference: Any) -> Task:
        """Remove and return a task that was answered."""
        task = self.tasks.pop(reference)
        task.actor.last_active = time.monotonic()
        if task.shard:
            self._finished_images[task.actor] += task.shard.images
        return task

    def finish(self, shard: Shard) -> bool:
        """Mark a shard as finished; return whether it was not before, by another actor."""
        is_first = shard.number in self.unfinished
        self.unfinished.discard(shard.number)
        return is_first

    def release(self, actor: PooledActor) -> int:
        """Remove a lost actor's tasks; its shards wait again, in front. Return how many do."""
        lost = [self.tasks.pop(reference) for reference, task in list(self.tasks.items()) if task.actor is actor]
        orphaned = self.unfinished - {task.number for task in self.tasks.values()}
        shards = [task.shard for task in lost if task.shard and task.number in orphaned]
        self.waiting.extendleft(reversed(shards))
        return len(shards)

    def dispatch(self, actors: Iterable[PooledActor]) -> Iterator[Assignment]:
        """Assign waiting shards to actors, and copies of shards in flight to idle actors once none wait.

        The actor with the fewest shards comes first, so that each gets one before any gets a second.

        Args:
            actors: Those that are ready.

        Yields:
            Actors and their next shards.
        """
        ready = list(actors)
        load = Counter(task.actor for task in self.tasks.values())
        while self.waiting and ready:
            actor = min(ready, key=lambda actor: load[actor])
            if load[actor] == SHARDS_PER_ACTOR:
                return
            load[actor] += 1
            yield actor, self.waiting.popleft()
        if not self.waiting:
            yield from self.speculate([actor for actor in ready if not load[actor]])

    def speculate(self, idle: Iterable[PooledActor]) -> Iterator[Assignment]:
        """Assign copies of shards in flight to idle actors that should finish them sooner; the first result counts.

        So no straggler delays the end of a run.
        """
        tasks = [task for task in self.tasks.values() if task.number in self.unfinished]
        copies = Counter(task.number for task in tasks)
        for actor in idle:
            gains = {task: self._gain(task, actor) for task in tasks if copies[task.number] < self._max_copies}
            best = max(gains, key=lambda task: gains[task], default=None)
            if best and best.shard and gains[best] > 0:
                copies[best.number] += 1
                yield actor, best.shard

    def _gain(self, task: Task, other: PooledActor) -> float:
        """Return the seconds that are probably saved if another actor works on a task's shard, too."""
        rates = [
            self._seconds_per_image(task.actor, time.monotonic()),
            self._seconds_per_image(other, other.last_active),  # its idle time says nothing
        ]
        known = [each for each in rates if each]
        if not known or not task.shard:
            return 0.0
        own, others = (each or max(known) for each in rates)
        before = [each for each in self.tasks_of(task.actor) if each.called <= task.called]
        left = sum(_images_left(each) for each in before)
        # An actor that has made no progress for some time will probably make none for as long again.
        seconds_left = max(own * left * SPECULATION_FACTOR, task.actor.seconds_without_progress)
        return seconds_left - others * task.shard.images

    def _seconds_per_image(self, actor: PooledActor, until: float) -> float | None:
        """Return an actor's mean time per image from its start until a moment; None if it has done none."""
        rows = actor.heartbeat.rows if actor.heartbeat else {}
        images = self._finished_images[actor] + sum(done for done, _ in rows.values())
        return (until - actor.started) / images if images and actor.started is not None else None


def _images_left(task: Task) -> int:
    if task.shard is None:
        return 0
    rows = task.actor.heartbeat.rows if task.actor.heartbeat else {}
    done, _ = rows.get(task.shard.number, (0, 0))
    return task.shard.images - done
