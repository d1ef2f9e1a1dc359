"""The totals of a run: its result as it grows, its metrics, and the reports of its progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from flowers_batch.cluster.dispatch import Schedule
from flowers_batch.cluster.messages import ActorInfo, PoolResult, ShardResult
from flowers_batch.cluster.metrics import RunMetrics
from flowers_batch.cluster.pool import PooledActor
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.progress import Progress, Reporter


class Totals:
    """What a run has done so far.

    Args:
        run: The run's folder, which labels its metrics.
        reporter: Receives messages and progress.
        on_shard_finished: Called with the footer of each finished shard; raises to end the run.

    Attributes:
        result: What `run_shards` will return.
    """

    def __init__(self, run: str, reporter: Reporter, on_shard_finished: Callable[[Footer], None] = lambda footer: None):
        self.result = PoolResult()
        self.message = reporter.message
        self._reporter, self._metrics, self._on_shard_finished = reporter, RunMetrics(run), on_shard_finished
        self._first_dispatch: float | None = None  # of a shard
        self._actor_seconds = 0.0  # of actors that have left since then

    def note_dispatch(self, now: float) -> None:
        """Note when the first shard was dispatched."""
        self._first_dispatch = self._first_dispatch or now

    def actor_started(self, info: ActorInfo) -> None:
        """Note an actor that takes shards from now on."""
        self.result.actors.append((info.host, info.gpus))

    def actor_left(self, actor: PooledActor) -> None:
        """Add up for how long an actor could work."""
        self._actor_seconds += self._seconds_of(actor, time.monotonic())

    def actor_lost(self, has_stalled: bool) -> None:
        """Count an actor that died or stalled."""
        if has_stalled:
            self.result.stalls += 1
        else:
            self.result.deaths += 1
        self._metrics.actor_lost()

    def shards_retried(self, shards: int) -> None:
        """Count shards that wait again because they lost their actor."""
        self._metrics.shards_retried(shards)

    def shard_finished(self, result: ShardResult) -> None:
        """Add a finished shard.

        Raises:
            FlowersError: As `on_shard_finished` raised it.
        """
        self.result.footers[result.footer.shard] = result.footer
        self.result.reused += result.reused
        for stage, seconds in result.stages.items():
            self.result.stages[stage] = self.result.stages.get(stage, 0.0) + seconds
        self._metrics.shard_finished(result)
        self._on_shard_finished(result.footer)

    def report(self, actors: Sequence[PooledActor], schedule: Schedule) -> None:
        """Report the finished images, including those in unfinished shards, and update the metrics."""
        finished = {
            number: (footer.ok + footer.failed, footer.failed) for number, footer in self.result.footers.items()
        }
        heartbeats = [actor.heartbeat for actor in actors if actor.heartbeat]
        partly = {number: rows for heartbeat in heartbeats for number, rows in heartbeat.rows.items()}
        counts = (partly | finished).values()
        done = sum(done for done, _ in counts)
        self._reporter.update(Progress(done=done, failed=sum(failed for _, failed in counts)))
        running = sum(actor.started is not None for actor in actors)
        waiting = len(schedule.waiting)
        self._metrics.update(
            images=done,
            seconds=time.monotonic() - self._first_dispatch if self._first_dispatch else 0.0,
            shards={"waiting": waiting, "in_flight": len(schedule.unfinished) - waiting, "done": len(finished)},
            actors={"pending": len(actors) - running, "running": running},
        )

    def finish(self, actors: Sequence[PooledActor]) -> PoolResult:
        """Return the result, with its duration and mean number of actors.

        Args:
            actors: Those that are left.
        """
        now = time.monotonic()
        result = self.result
        result.seconds = now - self._first_dispatch if self._first_dispatch else 0.0
        seconds = self._actor_seconds + sum(self._seconds_of(actor, now) for actor in actors)
        result.mean_actors = seconds / result.seconds if result.seconds else 0.0
        return result

    def _seconds_of(self, actor: PooledActor, now: float) -> float:
        """Return for how long an actor could work since the first dispatch."""
        return (
            0.0
            if actor.started is None or self._first_dispatch is None
            else now - max(actor.started, self._first_dispatch)
        )
