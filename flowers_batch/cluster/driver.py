"""The driver's loop: shards go to actors until all are finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flowers_batch.cluster.connection import connected
from flowers_batch.cluster.dispatch import MAX_COPIES_IN_FLIGHT, Schedule, Task
from flowers_batch.cluster.failures import ActorFailure, FailureTracker, error_raised_by, failure_of
from flowers_batch.cluster.local_ray import check_servers
from flowers_batch.cluster.messages import ActorInfo, PoolResult, ShardJob
from flowers_batch.cluster.pool import ActorPool, PooledActor
from flowers_batch.cluster.scaling import Resources
from flowers_batch.cluster.totals import Totals
from flowers_batch.config import ClusterConfig
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.progress import Reporter

POLL_SECONDS = 1.0  # between two polls of answers and heartbeats
WAIT_SECONDS = 60.0  # without work, after which the driver reports what it waits for
_SCALE_SECONDS = 5.0  # between two checks of the cluster's nodes


def run_shards(
    job: ShardJob,
    shards: list[Shard],
    cluster: ClusterConfig,
    on_first_fingerprint: Callable[[Fingerprint], None],
    reporter: Reporter,
    max_copies: int = MAX_COPIES_IN_FLIGHT,
    on_shard_finished: Callable[[Footer], None] = lambda footer: None,
) -> PoolResult:
    """Have a cluster's actors work on shards until all are finished.

    Args:
        job: What the actors do.
        shards: The shards to work on.
        cluster: Where the actors come from, and how many there should be.
        on_first_fingerprint: Called with the first actor's fingerprint before any shard is dispatched; raises to
            refuse it.
        reporter: Receives messages, and the finished images of these shards.
        max_copies: How many actors may work on the same shard when no others wait.
        on_shard_finished: Called with the footer of each finished shard; raises to end the run.

    Returns:
        What was done, and by which actors.

    Raises:
        FlowersError: As an actor or one of the functions raised it; or too many actors died on one shard.
    """
    with connected(cluster) as can_scale:
        pool = ActorPool(job, cluster, can_scale, on_first_fingerprint)
        totals = Totals(job.url, reporter, on_shard_finished)
        run = ShardRun(pool, Schedule(shards, max_copies), totals)
        try:
            return run.run()
        finally:
            for actor in list(pool.actors):
                pool.remove(actor)


class ShardRun:
    """One run: answers come in, and shards go out.

    Args:
        pool: The actors.
        schedule: The shards.
        totals: What the run has done so far, and the reporter.
        poll_seconds: Between two polls of answers and heartbeats.
    """

    def __init__(self, pool: ActorPool, schedule: Schedule, totals: Totals, poll_seconds: float = POLL_SECONDS):
        self._pool, self._schedule, self._totals = pool, schedule, totals
        self._failures, self._poll_seconds = FailureTracker(), poll_seconds

    def run(self) -> PoolResult:
        """Work until all shards are finished.

        Returns:
            What was done, and by which actors.

        Raises:
            FlowersError: As an actor raised it; or too many actors died on one shard.
        """
        last_scaled: float | None = None
        last_work = last_polled = time.monotonic()
        while self._schedule.unfinished:
            now = time.monotonic()
            if last_scaled is None or now - last_scaled >= _SCALE_SECONDS:
                last_scaled = now
                self.scale()
            self.take_answers()
            self.dispatch()
            now = time.monotonic()
            if self._schedule.busy_actors():
                self._totals.note_dispatch(now)
                last_work = now
            elif now - last_work > WAIT_SECONDS:
                last_work = now
                self._report_wait()
            if now - last_polled >= self._poll_seconds:
                # If the driver itself was stopped, as by Ctrl-Z, that time is not held against the actors.
                self._pool.poll(min(now - last_polled, 2 * self._poll_seconds))
                last_polled = now
                check_servers()
                self._replace_stalled()
                self._totals.report(self._pool.actors, self._schedule)
        self._totals.report(self._pool.actors, self._schedule)
        return self._totals.finish(self._pool.actors)

    def scale(self) -> None:
        """Request actors where they fit, and more where nodes may join; release those that have no work."""
        schedule = self._schedule
        if not schedule.waiting:
            for actor in self._pool.unneeded(schedule.busy_actors()):
                self._remove(actor)
            return
        requested, given_up = self._pool.plan(len(schedule.busy_actors()) + len(schedule.waiting))
        for actor in given_up:
            self._remove(actor)
        for resources in requested:
            self._add(resources)

    def _add(self, resources: Resources) -> None:
        actor = self._pool.add(resources)
        if not resources.is_placeholder:
            self._schedule.tasks[actor.handle.start.remote()] = Task(actor)

    def _remove(self, actor: PooledActor) -> None:
        self._totals.shards_retried(self._schedule.release(actor))
        self._totals.actor_left(actor)
        self._pool.remove(actor)

    def take_answers(self) -> None:
        """Take all answers that have come, and only then count which actors died, and on what.

        Raises:
            FlowersError: As an actor raised it; or too many actors died on one shard.
        """
        import ray

        tasks = self._schedule.tasks
        if not tasks:  # no actor is requested yet
            time.sleep(self._poll_seconds)
            return
        ray.wait([*tasks], num_returns=1, timeout=self._poll_seconds)
        ready, _ = ray.wait([*tasks], num_returns=len(tasks), timeout=0)
        deaths: dict[PooledActor, Exception] = {}
        for reference in ready:
            task = tasks[reference]
            try:
                answer = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                # The actor is alive, and its code raised: a retry would fail identically.
                if self._schedule.is_needed(task):
                    what = f"Shard {task.shard.number}" if task.shard else "An actor's start"
                    raise error_raised_by(error, what) from error
                del tasks[reference]
            except ray.exceptions.RayError as error:
                # Dead actors, but also ones that exhausted their node's memory, and lost nodes.
                deaths.setdefault(task.actor, error)
            else:
                self._on_answer(self._schedule.take(reference), answer)
        for actor, death in deaths.items():
            self._replace(actor, failure_of(death))

    def _on_answer(self, task: Task, answer: Any) -> None:
        if task.shard is None:
            self._on_started(task.actor, answer)
        elif self._schedule.finish(task.shard):
            self._totals.shard_finished(answer)

    def _on_started(self, actor: PooledActor, info: ActorInfo) -> None:
        self._failures.actor_started()
        if self._pool.accept(actor, info):
            self._totals.actor_started(info)
        else:
            self._remove(actor)
            self._add(actor.resources)

    def dispatch(self) -> None:
        """Send shards to the actors that have room for them."""
        schedule = self._schedule
        for actor, shard in schedule.dispatch(self._pool.ready):
            if not schedule.tasks_of(actor):
                actor.seconds_without_progress = 0.0  # it was idle
            actor.last_active = time.monotonic()
            schedule.attempts[shard.number] += 1
            reference = actor.handle.run.remote(shard, schedule.attempts[shard.number])
            schedule.tasks[reference] = Task(actor, shard)

    def _replace_stalled(self) -> None:
        failure = ActorFailure(f"it made no progress for {self._pool.stall_timeout:g} seconds.", has_stalled=True)
        for actor in self._pool.stalled({task.actor for task in self._schedule.tasks.values()}):
            self._replace(actor, failure)

    def _replace(self, actor: PooledActor, failure: ActorFailure) -> None:
        """Count a lost actor against its shards, and request another."""
        import ray

        if actor not in self._pool.actors:  # it was released when another was replaced
            return
        check_servers()
        verb = "was killed" if failure.has_stalled else "died"
        self._totals.message(f"An actor {verb}: {failure.cause} Its shards are retried.")
        self._pool.poll(0.0)  # it may have sent where it runs
        dead_nodes = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
        unfinished = [task.number for task in self._schedule.tasks_of(actor) if self._schedule.is_unfinished(task)]
        self._failures.record(failure, actor.node, unfinished, dead_nodes)
        self._remove(actor)
        self._totals.actor_lost(failure.has_stalled)
        self.scale()

    def _report_wait(self) -> None:
        """Report what the run waits for."""
        import ray

        actors = [actor for actor in self._pool.actors if not actor.resources.is_placeholder]
        if not actors:
            self._totals.message("Still waiting for the cluster's first node with a GPU or a CPU.")
            return
        placed = sum(actor.heartbeat is not None for actor in actors)
        if placed:
            self._totals.message(f"{placed} of {len(actors)} actors have their resources and are starting.")
            return
        requested, free = actors[0].resources, ray.available_resources()
        self._totals.message(
            f"Still waiting for resources: an actor needs {requested.gpus} GPUs and {requested.cpus} CPUs, and "
            f"{free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} CPUs of the cluster are free."
        )
