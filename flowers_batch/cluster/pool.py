"""The actors of a run, and the shards that they work on."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flowers_batch.cluster.actors import Factory, _actor_environment, _RemoteShardActor
from flowers_batch.cluster.connection import connected, living_nodes
from flowers_batch.cluster.failures import _cause, _cause_of, _Trouble
from flowers_batch.cluster.messages import ActorInfo, Heartbeat, ShardResult
from flowers_batch.cluster.metrics import _Meter
from flowers_batch.cluster.scaling import RequestedActor, Resources, plan_actors
from flowers_batch.config import ClusterConfig
from flowers_batch.dataset.shard import Shard
from flowers_batch.dataset.shard_file import Footer
from flowers_batch.encoding.worker import Quarantined
from flowers_batch.errors import RunError
from flowers_batch.fingerprint import Fingerprint
from flowers_batch.progress import Progress, Reporter

_SHARDS_AN_ACTOR = 2  # the images of one are taken when those of the other are, so that nothing waits in between
_POLL_SECONDS = 1.0
_WAIT_SECONDS = 60.0  # an actor that waits this long for resources is worth a word
_STAFF_SECONDS = 5.0  # between two looks at the cluster's nodes
_IDLE_SECONDS = 30.0  # an actor that has had no work for so long is let go, and with it maybe its node
_COPIES = 2  # actors that work on the same shard at most, when no other shards are left
_HURRY = 0.8  # of the time that an actor is likely to need: who needs less than that does its work too
_SUSPICIOUS_DEATHS = 2  # of actors on one shard: its images are inspected then
_MAX_DEATHS = 5  # of actors, on one shard or while starting: beyond this it is no accident
_IMAGE_SECONDS = 60.0  # no image takes so long to read and decode
_IMAGE_SHARE = 1 / 4  # at most so much of the time for which an actor may be silent: it tries an image twice


@dataclass
class PoolResult:
    """What a run of shards gave.

    Attributes:
        footers: By the shard's number.
        stages: Seconds by stage, over all actors, as `ShardResult` has them.
        seconds: From the first actor that was ready to the last shard.
        actors: Where they ran: host, and GPUs as Ray numbers them.
        size: How many worked at once, in the mean over these seconds.
        deaths: Actors that died.
        stalls: Actors that were killed because they made no progress.
        carried: Rows of shards that had changed which still held.
    """

    footers: dict[int, Footer] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    actors: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    size: float = 0.0
    deaths: int = 0
    stalls: int = 0
    carried: int = 0


def run_shards(
    factory: Factory,
    url: str,
    kind: str,
    shards: list[Shard],
    cluster: ClusterConfig,
    agree: Callable[[Fingerprint], None],
    reporter: Reporter,
) -> PoolResult:
    """Has a cluster's actors work on shards until all are done.

    Args:
        factory: Makes what runs in the actors.
        url: The run's folder.
        kind: `CODES` or `PREDICTIONS`.
        shards: What is to be done.
        cluster: Which cluster, and how many actors.
        agree: Called once, with the first actor's fingerprint, before any shard is worked on; raises to refuse.
        reporter: Receives messages, and the images done of these shards.

    Raises:
        FlowersError: As an actor raised it, or a shard outlived its actors too often.
    """
    with connected(cluster) as grows:
        pool = _Pool(factory, url, kind, shards, cluster, grows, agree, reporter)
        try:
            return pool.run()
        finally:
            pool.kill_actors()


@dataclass(eq=False)
class _Member:
    """An actor of the pool.

    Attributes:
        actor: Ray's handle of it.
        resources: What it asked for.
        poll: The object that `heartbeat` will give.
        position: Its last answer; None until it has its resources.
        quiet: Seconds for which that answer has not changed, or it has had no work.
        overtaken: Shards that later ones were finished before, and the seconds for which they have had no more rows.
        started: Since when it takes shards; None until then.
        worked: When it last had one.
        images: Those of the shards that it has finished.
    """

    actor: Any
    resources: Resources
    poll: Any
    heartbeat: Heartbeat | None = None
    quiet: float = 0.0
    overtaken: dict[int, float] = field(default_factory=dict)
    started: float | None = None
    worked: float = field(default_factory=time.monotonic)
    images: int = 0


@dataclass(frozen=True)
class _Task:
    """What an actor was asked to do.

    Attributes:
        member: The actor.
        shard: What it works on; None while it starts.
        take: What is done with its answer.
        asked: When.
    """

    member: _Member
    shard: Shard | None
    take: Callable[[Any], None]
    asked: float = field(default_factory=time.monotonic)


class _Pool:
    """The actors of one run, and the shards that are out with them."""

    def __init__(
        self,
        factory: Factory,
        url: str,
        kind: str,
        shards: list[Shard],
        cluster: ClusterConfig,
        grows: bool,
        agree: Callable[[Fingerprint], None],
        reporter: Reporter,
    ):
        self._factory, self._url, self._kind = factory, url, kind
        self._cluster, self._grows, self._agree, self._reporter = cluster, grows, agree, reporter
        self._waiting = deque(shards)
        self._left = {shard.number for shard in shards}  # what no actor has finished
        self._members: list[_Member] = []
        self._tasks: dict[Any, _Task] = {}  # by the object that each will give, in the order of asking
        self._attempts: Counter[int] = Counter()  # by shard: how often it was handed out
        self._meter = _Meter(url)
        self._troubles: defaultdict[int | None, _Trouble] = defaultdict(_Trouble)  # by shard; None: while starting
        self._fingerprint: Fingerprint | None = None
        self._outcome = PoolResult()
        self._begun: float | None = None  # when the first shard was handed out
        self._worked = 0.0  # seconds of all actors since then
        self._polled = time.monotonic()

    def add_actor(self, resources: Resources) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options: dict[str, Any] = {
            "num_gpus": resources.gpu_share,
            "num_cpus": resources.cpus,
            "max_concurrency": _SHARDS_AN_ACTOR,
            "runtime_env": {"env_vars": _actor_environment(resources)},
        }
        if resources.node:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(resources.node, soft=True)
        # `heartbeat` has a thread of its own: it is answered while a shard is worked on.
        wrap: Any = ray.remote(concurrency_groups={"heartbeat": 1})  # type: ignore[call-overload]
        remote = wrap(_RemoteShardActor).options(**options)
        actor = remote.remote(self._factory, self._url, self._kind, resources)
        member = _Member(actor, resources, actor.heartbeat.remote())
        self._members.append(member)
        if resources.is_placeholder:
            return
        self._tasks[actor.start.remote()] = _Task(member, None, lambda answer: self._on_started(member, answer))

    def kill_actors(self) -> None:
        for member in list(self._members):
            self._forget(member)

    def run(self) -> PoolResult:
        last_work = time.monotonic()
        staffed: float | None = None
        while self._left:
            now = time.monotonic()
            if staffed is None or now - staffed >= _STAFF_SECONDS:
                staffed = now
                self._staff()
            self._take_answers()
            self._hand_out()
            now = time.monotonic()
            if any(task.shard for task in self._tasks.values()):
                self._begun, last_work = self._begun or now, now
            elif now - last_work > _WAIT_SECONDS:
                last_work = now
                self._say_what_is_missing()
            if now - self._polled >= _POLL_SECONDS:
                # Time in which the driver itself was stopped, as by Ctrl-Z, says nothing of the actors.
                self._poll(min(now - self._polled, 2 * _POLL_SECONDS))
                self._polled = now
                self._replace_stalled()
                self._report()
        self._report()
        now = time.monotonic()
        self._outcome.seconds = now - (self._begun or last_work)
        worked = self._worked + sum(self._seconds_of(member, now) for member in self._members)
        self._outcome.size = worked / self._outcome.seconds if self._outcome.seconds else 0.0
        return self._outcome

    def _seconds_of(self, member: _Member, now: float) -> float:
        """For how long an actor could have worked since the run began to."""
        return 0.0 if member.started is None or self._begun is None else now - max(member.started, self._begun)

    def _staff(self) -> None:
        """Asks for actors where there is room, and for more where there may be; lets those go that have no work."""
        if not self._waiting:
            if self._grows:
                self._let_go()
            return
        nodes = living_nodes()
        posts = [
            RequestedActor(member.resources, member.heartbeat.node if member.heartbeat else None)
            for member in self._members
        ]
        wanted, gpu, sharing = self._cluster.actors, self._factory.wants_gpu, self._cluster.actors_per_gpu
        left = len(self._busy()) + len(self._waiting)
        asked, given_up = plan_actors(nodes, posts, wanted, gpu, self._grows, left, sharing)
        for member in [self._members[number] for number in given_up]:
            self._forget(member)
        for resources in asked:
            self.add_actor(resources)

    def _busy(self) -> set[_Member]:
        return {task.member for task in self._tasks.values() if task.shard}

    def _let_go(self) -> None:
        """Ends actors that are of no more use, so that their nodes may go, and no others come."""
        now, busy = time.monotonic(), self._busy()
        idle = [member for member in self._members if member not in busy]
        ready = [member for member in idle if member.started is not None]
        for member in idle:
            # One stays, for the shard of an actor that dies or stands still.
            if member.heartbeat is None or (member not in ready[:1] and now - member.worked > _IDLE_SECONDS):
                self._forget(member)

    def _take_answers(self) -> None:
        """Takes what the actors have answered, and only then counts who died, and on what."""
        import ray

        if not self._tasks:  # nobody is asked for anything yet
            time.sleep(_POLL_SECONDS)
            return
        ray.wait([*self._tasks], num_returns=1, timeout=_POLL_SECONDS)
        ready, _ = ray.wait([*self._tasks], num_returns=len(self._tasks), timeout=0)
        dead: dict[_Member, Exception] = {}
        for reference in ready:
            task = self._tasks[reference]
            try:
                answer = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                if task.shard and (task.shard.number not in self._left or self._is_elsewhere(task)):
                    del self._tasks[reference]  # another has finished it, or is at it: its own trouble counts
                    continue
                # The actor lives, and its program failed: the same again would fail again.
                raise _cause_of(error, f"Shard {task.shard.number}" if task.shard else "An actor's start") from error
            except ray.exceptions.RayError as error:
                # Besides dead actors: one that used up its node's memory, a node that is gone.
                dead.setdefault(task.member, error)
            else:
                del self._tasks[reference]
                task.member.worked = time.monotonic()
                task.member.images += task.shard.images if task.shard else 0
                self._note_overtaken(task)
                task.take(answer)
        for member, death in dead.items():
            if member not in self._members:  # let go together with another that died
                continue
            if "creation task" in str(death):  # its node lacks something that the program needs
                last = str(death).strip().splitlines()[-1]
                raise RunError(
                    f"An actor could not be made: {last}; install the same packages on all nodes."
                ) from death
            self._outcome.deaths += 1
            self._reporter.message(f"An actor died: {_cause(death)} Its shards go to others.")
            self._replace(member, _cause(death))

    def _is_elsewhere(self, task: _Task) -> bool:
        assert task.shard
        return any(
            other is not task and other.shard and other.shard.number == task.shard.number
            for other in self._tasks.values()
        )

    def _note_overtaken(self, ended: _Task) -> None:
        """Notes which of an actor's shards is late: one that was asked for before another that is finished."""
        if ended.shard:
            ended.member.overtaken.pop(ended.shard.number, None)
            for task in self._tasks.values():
                if task.member is ended.member and task.shard and task.asked < ended.asked:
                    task.member.overtaken.setdefault(task.shard.number, 0.0)

    def _hand_out(self) -> None:
        """Gives waiting shards to the actors that have fewest: all get one before any gets a second.

        A shard that is suspected has an actor to itself, so that no other is blamed for its deaths.
        """
        members = [member for member in self._members if member.started is not None]
        held: Counter[_Member] = Counter()
        for task in self._tasks.values():
            held[task.member] += _SHARDS_AN_ACTOR if self._is_suspect(task.shard) else 1
        while self._waiting and members:
            member = min(members, key=lambda member: held[member])
            share = _SHARDS_AN_ACTOR if self._is_suspect(self._waiting[0]) else 1
            if held[member] + share > _SHARDS_AN_ACTOR:
                return
            if not held[member]:
                member.quiet = 0.0
            held[member] += share
            self._hand(member, self._waiting.popleft())
        if not self._waiting:
            self._hand_out_again([member for member in members if not held[member]])

    def _hand_out_again(self, idle: list[_Member]) -> None:
        """Gives actors that have nothing to do what others would be longer at than they: the first answer counts.

        So the end waits for no actor that is slow, or has more than its share.
        """
        out = Counter(task.shard.number for task in self._tasks.values() if task.shard)
        for member in idle:
            gains = {
                task: self._gain(task, member)
                for task in self._tasks.values()
                if task.shard
                and task.shard.number in self._left
                and out[task.shard.number] < _COPIES
                and not self._is_suspect(task.shard)
            }
            task = max(gains, key=lambda task: gains[task], default=None)
            if task is None or task.shard is None or gains[task] <= 0:
                continue
            member.quiet = 0.0
            out[task.shard.number] += 1
            self._hand(member, task.shard)

    def _gain(self, task: _Task, other: _Member) -> float:
        """Seconds that are likely to be saved if another actor begins with a task's shard."""
        assert task.shard
        seconds = [
            self._seconds_an_image(task.member, time.monotonic()),
            self._seconds_an_image(other, other.worked),  # its idle time tells nothing
        ]
        known = [each for each in seconds if each]
        if not known:
            return 0.0
        own, others = (each or max(known) for each in seconds)
        before = [each for each in self._tasks.values() if each.member is task.member and each.asked <= task.asked]
        left = sum(self._images_left(each) for each in before if each.shard)
        # Who has stood still for long is likely to do so for as long again.
        return max(own * left * _HURRY, task.member.quiet) - others * task.shard.images

    def _seconds_an_image(self, member: _Member, until: float) -> float | None:
        """How long an actor took for an image until then; None where it did none."""
        images = member.images + sum(done for done, _ in (member.heartbeat.rows if member.heartbeat else {}).values())
        return (until - member.started) / images if images and member.started is not None else None

    def _images_left(self, task: _Task) -> int:
        assert task.shard
        heartbeat = task.member.heartbeat
        return task.shard.images - (heartbeat.rows.get(task.shard.number, (0, 0))[0] if heartbeat else 0)

    def _is_suspect(self, shard: Shard | None) -> bool:
        return shard is not None and shard.number in self._troubles and self._troubles[shard.number].suspect

    def _hand(self, member: _Member, shard: Shard) -> None:
        member.worked = time.monotonic()
        trouble = self._troubles.get(shard.number, _Trouble())
        if trouble.suspect and trouble.quarantined is None:
            self._reporter.message(
                f"Actors died or stalled on shard {shard.number}: its images are inspected, one by one, "
                "before it is tried again."
            )
            reference = member.actor.inspect.remote(
                shard, min(_IMAGE_SECONDS, self._cluster.stall_timeout * _IMAGE_SHARE)
            )
            self._tasks[reference] = _Task(member, shard, lambda answer: self._on_inspected(shard, answer))
        else:
            self._attempts[shard.number] += 1
            reference = member.actor.run.remote(shard, trouble.quarantined or {}, self._attempts[shard.number])
            self._tasks[reference] = _Task(member, shard, lambda answer: self._on_finished(shard, answer))

    def _on_started(self, member: _Member, started: ActorInfo) -> None:
        self._troubles.pop(None, None)
        if self._fingerprint is None:
            self._agree(started.fingerprint)
            self._fingerprint = started.fingerprint
            # Whoever starts from now on computes in what the first computes in.
            self._factory = self._factory.with_precision(started.fingerprint.precision)
        elif started.fingerprint != self._fingerprint:
            if started.fingerprint.precision == self._fingerprint.precision:
                raise RunError(
                    f"The actor on {started.host} would make other rows than the first: "
                    f"{started.fingerprint.differences(self._fingerprint)}; give all nodes the same files."
                )
            self.add_actor(self._forget(member))
            return
        self._outcome.actors.append((started.host, started.gpus))
        member.started = member.worked = time.monotonic()

    def _on_finished(self, shard: Shard, done: ShardResult) -> None:
        if shard.number not in self._left:  # another was faster
            return
        self._left.remove(shard.number)
        self._outcome.footers[shard.number] = done.footer
        self._outcome.carried += done.carried
        for stage, seconds in done.stages.items():
            self._outcome.stages[stage] = self._outcome.stages.get(stage, 0.0) + seconds
        self._meter.count(done)

    def _on_inspected(self, shard: Shard, quarantined: Quarantined) -> None:
        trouble = self._troubles[shard.number]
        trouble.quarantined = quarantined
        for path, (reason, message) in quarantined.items():
            self._reporter.message(f"{path} becomes a failed row ({reason}): {message}")
        if quarantined:
            trouble.nodes.clear()
        else:
            self._reporter.message(f"None of the images of shard {shard.number} is to blame.")
        self._waiting.appendleft(shard)

    def _replace(self, member: _Member, why: str, stalled: bool = False) -> None:
        """Puts a new actor in the place of one that died or stalled, and counts that against the shard at work."""
        import ray

        self._poll(0.0)  # it may have said where it runs
        gone = {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
        # Which of its shards was to blame is not known: its images may have been taken since it last told of itself.
        held = [task.shard and task.shard.number for task in self._tasks.values() if task.member is member]
        for number in (number for number in held if number is None or number in self._left):
            trouble = self._troubles[number]
            trouble.nodes.append(member.heartbeat.node if member.heartbeat else None)
            # Whatever died with its node did not die of the shard; Ray may learn of the node later than of the actor.
            deaths = sum(node not in gone for node in trouble.nodes)
            if deaths >= _MAX_DEATHS:
                where = "while they started" if number is None else f"on shard {number}"
                other = "other " if trouble.quarantined else ""
                blame = "" if trouble.quarantined is None else f", and none of its {other}images is to blame"
                raise RunError(
                    f"{_MAX_DEATHS} actors died {where}{blame}; the last with: {why} "
                    "The same command goes on where it stopped."
                )
            trouble.suspect |= stalled or deaths >= _SUSPICIOUS_DEATHS
        self._forget(member)
        self._meter.restarts.inc()
        self._staff()

    def _replace_stalled(self) -> None:
        busy = {task.member for task in self._tasks.values()}
        for member in list(self._members):
            if member not in self._members:
                continue
            longest = max(member.quiet, *member.overtaken.values(), 0.0)
            if member in busy and member.heartbeat and longest > self._cluster.stall_timeout:
                self._outcome.stalls += 1
                why = f"it made no progress for {self._cluster.stall_timeout:g} seconds."
                self._reporter.message(f"An actor is killed: {why} Its shards go to others.")
                self._replace(member, why, stalled=True)

    def _forget(self, member: _Member) -> Resources:
        """Ends an actor; its shards wait again, in front."""
        import ray

        lost = {reference: task for reference, task in self._tasks.items() if task.member is member}
        for reference in lost:
            del self._tasks[reference]
        elsewhere = {task.shard.number for task in self._tasks.values() if task.shard}
        own = [task.shard for task in lost.values() if task.shard and task.shard.number in self._left - elsewhere]
        self._waiting.extendleft(reversed(own))
        if own:
            self._meter.retries.inc(len(own))
        self._members.remove(member)
        self._worked += self._seconds_of(member, time.monotonic())
        with contextlib.suppress(Exception):
            ray.kill(member.actor)  # ends one that is stopped or stuck in foreign code, too, within seconds
        return member.resources

    def _poll(self, seconds: float) -> None:
        """Takes what the actors say of how far they are, so many seconds after the last time, and asks again."""
        import ray

        ready, _ = ray.wait([member.poll for member in self._members], num_returns=len(self._members), timeout=0)
        answered = set(ready)
        for member in list(self._members):
            member.quiet += seconds
            for number in member.overtaken:
                member.overtaken[number] += seconds
            if member.poll in answered:
                try:
                    heartbeat = ray.get(member.poll)
                except ray.exceptions.RayError:
                    if member.resources.is_placeholder:  # nobody else would notice, since it is asked for nothing
                        self._forget(member)
                        continue
                else:
                    before = member.heartbeat.rows if member.heartbeat else {}
                    for number in member.overtaken:
                        if heartbeat.rows.get(number) != before.get(number):
                            member.overtaken[number] = 0.0
                    if heartbeat != member.heartbeat:
                        member.heartbeat, member.quiet = heartbeat, 0.0
                member.poll = member.actor.heartbeat.remote()

    def _report(self) -> None:
        """Report what is done, including the images done of unfinished shards."""
        footers = self._outcome.footers
        positions = [member.heartbeat for member in self._members if member.heartbeat]
        partly = {number: rows for heartbeat in positions for number, rows in heartbeat.rows.items()}
        counts = partly | {number: (footer.ok + footer.failed, footer.failed) for number, footer in footers.items()}
        done = sum(done for done, _ in counts.values())
        self._reporter.update(Progress(done=done, failed=sum(failed for _, failed in counts.values())))
        started = sum(member.started is not None for member in self._members)
        self._meter.show(
            images=done,
            seconds=time.monotonic() - (self._begun or time.monotonic()),
            shards={"waiting": len(self._waiting), "out": len(self._left) - len(self._waiting), "done": len(footers)},
            actors={"asked for": len(self._members) - started, "at work": started},
        )

    def _say_what_is_missing(self) -> None:
        import ray

        members = [member for member in self._members if not member.resources.is_placeholder]
        if not members:
            self._reporter.message("Still waiting for the cluster's first node with a GPU or a CPU to run on.")
            return
        placed = sum(member.heartbeat is not None for member in members)
        if placed:
            self._reporter.message(f"{placed} of {len(members)} actors have their resources and are starting.")
            return
        wanted = members[0].resources
        free = ray.available_resources()
        self._reporter.message(
            f"Still waiting for resources: an actor asks for {wanted.gpu_share:g} GPUs and {wanted.cpus} CPUs, and the "
            f"cluster has {free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} CPUs free."
        )
