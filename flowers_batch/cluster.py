"""The only room with Ray: actors that work on shards, handed out as they finish, and again when an actor dies."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from flowers_batch.config import (
    WEIGHTS_ENVIRONMENT,
    ClusterConfig,
    Fingerprint,
    FlowersError,
    InputError,
    RunError,
    first_line,
)
from flowers_batch.dataset import Footer, interleave, write_shard
from flowers_batch.device import gpu_memory
from flowers_batch.encoder import Condemned, Worker
from flowers_batch.shards import Shard, carried_over, read_rows
from flowers_batch.sources import Image, images_of
from flowers_batch.staffing import Post, Resources, staff, whole_node
from flowers_batch.storage import open_folder

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
_OBJECT_STORE_BYTES = 100 << 20  # pixels and codes never travel through it


class Factory(Protocol):
    """Makes a worker inside an actor: `encoder.EncoderFactory` or `encoder.LabellerFactory`."""

    @property
    def wants_gpu(self) -> bool:
        """Whether what it makes computes on a GPU where the cluster has one."""

    def __call__(self, threads: int, gpu: bool) -> Worker:
        """Makes a worker that uses so many threads, and a GPU or none."""

    def with_precision(self, precision: str) -> Factory:
        """The same factory, told what to compute in."""

    def culprits(self, images: Sequence[Image], seconds: float, progress: Callable[[int], None]) -> Condemned:
        """Finds the images that end the process that works on them, or keep it for more than so many seconds."""


@dataclass(frozen=True)
class Started:
    """What an actor says when it is ready: what its rows depend on, and where it runs."""

    fingerprint: Fingerprint
    host: str
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class Position:
    """How far an actor is; as long as it gets on, its next answer is another.

    Attributes:
        node: Where it runs, as Ray names the node.
        step: Grows with all that it gets done: a batch, an image that is inspected, a file that is written.
        rows: The shards that it is at: rows so far, and how many of them failed.
    """

    node: str
    step: int = 0
    rows: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """A finished shard: its footer as written, the seconds that each stage took, and how many rows were kept.

    Seconds of `read` and `decode` are those of all the actor's threads together.
    """

    footer: Footer
    stages: dict[str, float]
    carried: int = 0


@dataclass
class Outcome:
    """What a run of shards gave.

    Attributes:
        footers: By the shard's number.
        stages: Seconds by stage, over all actors, as `Done` has them.
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


class Watcher(Protocol):
    """Who is told how a run goes: `progress.Progress`."""

    def update(self, done: int, failed: int) -> None:
        """So many images are done by now, so many of them failed."""

    def say(self, sentence: str) -> None:
        """Something that a person should know now."""


class ShardActor:
    """What runs in a Ray actor: a worker, and the folder that its shards are written to. Knows no Ray itself.

    Two shards may be run at once, so that the second is read and decoded while the first is computed and written.
    """

    def __init__(self, factory: Factory, url: str, kind: str, threads: int, gpus: tuple[str, ...], node: str):
        self._factory, self._threads, self._gpus = factory, threads, gpus
        self._folder, self._kind, self._node = open_folder(url), kind, node
        self._steps, self._rows = itertools.count(), dict[int, tuple[int, int]]()
        self._step = 0

    def start(self) -> Started:
        """Makes the worker, which may take a while, and tells what its rows will depend on."""
        self._worker = self._factory(self._threads, bool(self._gpus))
        return Started(self._worker.fingerprint, socket.gethostname(), self._gpus)

    def run(self, shard: Shard, condemned: Condemned) -> Done:
        """Works on a shard and publishes it, without touching the condemned images."""
        worker, schema, stages = self._worker, self._worker.schema, dict[str, float]()
        expected = Footer(worker.fingerprint.digest, shard.number, shard.inputs, 0, 0)
        rows = read_rows(self._folder, shard)
        kept: pa.Array = pa.array([], pa.string())
        if worker.keeps_rows:
            kept, old = carried_over(self._folder, self._kind, shard, schema, expected.fingerprint)
        if len(kept):
            is_kept = pc.is_in(rows["path"], kept)
            new = worker.batches(shard.number, rows.filter(pc.invert(is_kept)), stages, condemned)
            batches = interleave(old, new, is_kept.to_numpy(), schema)
        else:
            batches = worker.batches(shard.number, rows, stages, condemned)
        begun, waited = time.perf_counter(), [0.0]
        counted = self._counted(shard, batches, waited)
        footer = write_shard(self._folder, self._kind, schema, counted, expected)
        stages["write"] = time.perf_counter() - begun - waited[0]
        self._rows.pop(shard.number)
        return Done(footer, stages, len(kept))

    def inspect(self, shard: Shard, seconds: float) -> Condemned:
        """Finds a shard's images that end a process, or keep it for more than so many seconds each."""
        self._advance()
        return self._factory.culprits(images_of(read_rows(self._folder, shard)), seconds, lambda done: self._advance())

    def _counted(
        self, shard: Shard, batches: Iterator[pa.RecordBatch], waited: list[float]
    ) -> Iterator[pa.RecordBatch]:
        """Counts rows, and the seconds for which they were waited for; refuses to end with too few or too many."""
        done = failed = 0
        while True:
            self._rows[shard.number] = done, failed
            self._advance()
            begun = time.perf_counter()
            batch = next(batches, None)
            waited[0] += time.perf_counter() - begun
            if batch is None:
                break
            done += len(batch)
            failed += len(batch) - batch["reason"].null_count
            yield batch
        if done != shard.images:
            raise RunError(f"Shard {shard.number} has {shard.images} images, and {done} rows came out.")

    def _advance(self) -> None:
        self._step = next(self._steps)

    def position(self) -> Position:
        """How far it is; called while the other methods run."""
        if not hasattr(self, "_worker"):
            return Position(self._node, self._step)
        return Position(self._node, self._step + self._worker.touched, self._rows.copy())


def run_shards(
    factory: Factory,
    url: str,
    kind: str,
    shards: list[Shard],
    cluster: ClusterConfig,
    agree: Callable[[Fingerprint], None],
    watcher: Watcher,
) -> Outcome:
    """Has a cluster's actors work on shards until all are done.

    Args:
        factory: Makes what runs in the actors.
        url: The run's folder.
        kind: `CODES` or `PREDICTIONS`.
        shards: What is to be done.
        cluster: Which cluster, and how many actors.
        agree: Called once, with the first actor's fingerprint, before any shard is worked on; raises to refuse.
        watcher: Is told how it goes.

    Raises:
        FlowersError: As an actor raised it, or a shard outlived its actors too often.
    """
    with _connected(cluster) as grows:
        pool = _Pool(factory, url, kind, shards, cluster, grows, agree, watcher)
        try:
            return pool.run()
        finally:
            pool.kill_actors()


class Work(Protocol):
    """What one actor does alone, such as `tuning.Tuning`; what it has done when it dies, it leaves on a disk."""

    def __call__(self, threads: int, gpus: int, tell: Callable[[str, bool], None]) -> Any:
        """Does it, with so many threads and GPUs, and tells how it goes: a sentence, and whether it is to stay."""


def run_alone(work: Work, cluster: ClusterConfig, tell: Callable[[str, bool], None]) -> Any:
    """Has one actor do something, with all GPUs of a node or, where there are none, all of its cores.

    An actor that dies, or tells nothing new for too long, is replaced by another, which is given the same.

    Args:
        work: What it does.
        cluster: Which cluster, and for how long an actor may be silent.
        tell: Is told how it goes.

    Returns:
        What the work gave.

    Raises:
        FlowersError: As the actor raised it, or too many actors died.
    """
    with _connected(cluster):
        deaths = 0
        while True:
            soloist = _Soloist(work, cluster, tell)
            try:
                return soloist.run()
            except _DeathError as death:
                deaths = 1 if soloist.has_told else deaths + 1
                if deaths == _MAX_DEATHS:
                    raise RunError(
                        f"{deaths} actors died before they got any further, the last with: {death} The same command "
                        "goes on where it stopped."
                    ) from death
                tell(f"The actor died: {death} Another goes on.", True)
            finally:
                soloist.kill()


class _DeathError(Exception):
    """An actor is no more; says why."""


class _Soloist:
    """An actor that works alone."""

    def __init__(self, work: Work, cluster: ClusterConfig, tell: Callable[[str, bool], None]):
        self._work, self._cluster, self._tell = work, cluster, tell
        self._actor: Any = None
        self._stayed, self._latest = 0, ""  # sentences that are to stay, and the last other one
        self._quiet = self._waited = 0.0  # seconds without a new sentence, and without an answer

    @property
    def has_told(self) -> bool:
        """Whether it got so far that it told something that is to stay."""
        return self._stayed > 0

    def run(self) -> Any:
        """Has it work, and gives what came of it."""
        import ray

        self._actor = self._made()
        result, heard = self._actor.run.remote(self._work), self._actor.told.remote(0)
        while True:
            done, _ = ray.wait([result], timeout=_POLL_SECONDS)
            self._quiet += _POLL_SECONDS
            self._waited += _POLL_SECONDS
            try:
                if ray.wait([heard], timeout=0)[0]:
                    self._pass_on(*ray.get(heard))
                    heard = self._actor.told.remote(self._stayed)
                if done:
                    given = ray.get(result)
                    self._pass_on(*ray.get(self._actor.told.remote(self._stayed)))
                    return given
            except ray.exceptions.RayTaskError as error:
                raise _cause_of(error, "The actor") from error
            except ray.exceptions.RayError as error:
                raise _DeathError(_cause(error)) from error
            if self._latest and self._quiet > self._cluster.stall_timeout:
                raise _DeathError(f"it made no progress for {self._cluster.stall_timeout:g} seconds.")
            if self._waited > _WAIT_SECONDS:
                self._waited = 0.0
                self._tell("Still waiting for a node whose resources are free.", True)

    def _pass_on(self, stay: list[str], latest: str) -> None:
        self._waited = 0.0
        for sentence in stay:
            self._tell(sentence, True)
        if stay or latest != self._latest:
            self._quiet = 0.0
        if latest and latest != self._latest:
            self._tell(latest, False)
        self._stayed, self._latest = self._stayed + len(stay), latest

    def _made(self) -> Any:
        import ray

        scout: Any = None
        resources = whole_node(_living_nodes())
        while resources is None:
            if scout is None:  # an autoscaler brings a node for it
                self._tell("Waiting for the cluster's first node.", True)
                scout = ray.remote(_SoloActor).options(num_cpus=1).remote()
            time.sleep(_POLL_SECONDS)
            resources = whole_node(_living_nodes())
        if scout is not None:
            ray.kill(scout)
        options = {
            "num_gpus": resources.gpus,
            "num_cpus": resources.cpus,
            "runtime_env": {"env_vars": _actor_environment(resources)},
        }
        wrap: Any = ray.remote(concurrency_groups={"told": 1})  # type: ignore[call-overload]
        return wrap(_SoloActor).options(**options).remote()

    def kill(self) -> None:
        """Ends it."""
        import ray

        if self._actor is not None:
            with contextlib.suppress(Exception):
                ray.kill(self._actor)


class _SoloActor:
    """What runs in the actor that works alone."""

    def __init__(self) -> None:
        self._lasting: list[str] = []
        self._latest = ""

    def run(self, work: Work) -> Any:
        import ray

        context = ray.get_runtime_context()
        node = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
        threads, gpus = int(node["Resources"].get("CPU", 1)), len(context.get_accelerator_ids().get("GPU", ()))
        return work(threads, gpus, self._hear)

    def _hear(self, sentence: str, stays: bool) -> None:
        if stays:
            self._lasting.append(sentence)
        else:
            self._latest = sentence

    def told(self, before: int) -> tuple[list[str], str]:
        """The sentences that are to stay, but for so many that were told, and the latest of the others."""
        return self._lasting[before:], self._latest

    told.__ray_concurrency_group__ = "told"  # type: ignore[attr-defined]


@dataclass(eq=False)
class _Member:
    """An actor of the pool.

    Attributes:
        actor: Ray's handle of it.
        resources: What it asked for.
        poll: The object that `position` will give.
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
    position: Position | None = None
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


@dataclass
class _Trouble:
    """What befell a shard.

    Attributes:
        nodes: Where the actors ran that died on it; None where that is not known.
        suspect: Whether its images are to be inspected, unless they were.
        condemned: Images that are to blame; None until they were inspected.
    """

    nodes: list[str | None] = field(default_factory=list)
    suspect: bool = False
    condemned: Condemned | None = None


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
        watcher: Watcher,
    ):
        self._factory, self._url, self._kind = factory, url, kind
        self._cluster, self._grows, self._agree, self._watcher = cluster, grows, agree, watcher
        self._waiting = deque(shards)
        self._left = {shard.number for shard in shards}  # what no actor has finished
        self._members: list[_Member] = []
        self._tasks: dict[Any, _Task] = {}  # by the object that each will give, in the order of asking
        self._attempts: Counter[int] = Counter()  # by shard: how often it was handed out
        self._meter = _Meter(url)
        self._troubles: defaultdict[int | None, _Trouble] = defaultdict(_Trouble)  # by shard; None: while starting
        self._fingerprint: Fingerprint | None = None
        self._outcome = Outcome()
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
        # `position` has a thread of its own: it is answered while a shard is worked on.
        wrap: Any = ray.remote(concurrency_groups={"position": 1})  # type: ignore[call-overload]
        remote = wrap(_RemoteShardActor).options(**options)
        actor = remote.remote(self._factory, self._url, self._kind, resources)
        member = _Member(actor, resources, actor.position.remote())
        self._members.append(member)
        if resources.is_scout:
            return
        self._tasks[actor.start.remote()] = _Task(member, None, lambda answer: self._on_started(member, answer))

    def kill_actors(self) -> None:
        for member in list(self._members):
            self._forget(member)

    def run(self) -> Outcome:
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
                self._tell()
        self._tell()
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
        nodes = _living_nodes()
        posts = [Post(member.resources, member.position.node if member.position else None) for member in self._members]
        wanted, gpu, sharing = self._cluster.actors, self._factory.wants_gpu, self._cluster.actors_per_gpu
        left = len(self._busy()) + len(self._waiting)
        asked, given_up = staff(nodes, posts, wanted, gpu, self._grows, left, sharing)
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
            if member.position is None or (member not in ready[:1] and now - member.worked > _IDLE_SECONDS):
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
            self._watcher.say(f"An actor died: {_cause(death)} Its shards go to others.")
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
        images = member.images + sum(done for done, _ in (member.position.rows if member.position else {}).values())
        return (until - member.started) / images if images and member.started is not None else None

    def _images_left(self, task: _Task) -> int:
        assert task.shard
        position = task.member.position
        return task.shard.images - (position.rows.get(task.shard.number, (0, 0))[0] if position else 0)

    def _is_suspect(self, shard: Shard | None) -> bool:
        return shard is not None and shard.number in self._troubles and self._troubles[shard.number].suspect

    def _hand(self, member: _Member, shard: Shard) -> None:
        member.worked = time.monotonic()
        trouble = self._troubles.get(shard.number, _Trouble())
        if trouble.suspect and trouble.condemned is None:
            self._watcher.say(
                f"Actors died or stalled on shard {shard.number}: its images are inspected, one by one, "
                "before it is tried again."
            )
            reference = member.actor.inspect.remote(
                shard, min(_IMAGE_SECONDS, self._cluster.stall_timeout * _IMAGE_SHARE)
            )
            self._tasks[reference] = _Task(member, shard, lambda answer: self._on_inspected(shard, answer))
        else:
            self._attempts[shard.number] += 1
            reference = member.actor.run.remote(shard, trouble.condemned or {}, self._attempts[shard.number])
            self._tasks[reference] = _Task(member, shard, lambda answer: self._on_finished(shard, answer))

    def _on_started(self, member: _Member, started: Started) -> None:
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

    def _on_finished(self, shard: Shard, done: Done) -> None:
        if shard.number not in self._left:  # another was faster
            return
        self._left.remove(shard.number)
        self._outcome.footers[shard.number] = done.footer
        self._outcome.carried += done.carried
        for stage, seconds in done.stages.items():
            self._outcome.stages[stage] = self._outcome.stages.get(stage, 0.0) + seconds
        self._meter.count(done)

    def _on_inspected(self, shard: Shard, condemned: Condemned) -> None:
        trouble = self._troubles[shard.number]
        trouble.condemned = condemned
        for path, (reason, message) in condemned.items():
            self._watcher.say(f"{path} becomes a failed row ({reason}): {message}")
        if condemned:
            trouble.nodes.clear()
        else:
            self._watcher.say(f"None of the images of shard {shard.number} is to blame.")
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
            trouble.nodes.append(member.position.node if member.position else None)
            # Whatever died with its node did not die of the shard; Ray may learn of the node later than of the actor.
            deaths = sum(node not in gone for node in trouble.nodes)
            if deaths >= _MAX_DEATHS:
                where = "while they started" if number is None else f"on shard {number}"
                other = "other " if trouble.condemned else ""
                blame = "" if trouble.condemned is None else f", and none of its {other}images is to blame"
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
            if member in busy and member.position and longest > self._cluster.stall_timeout:
                self._outcome.stalls += 1
                why = f"it made no progress for {self._cluster.stall_timeout:g} seconds."
                self._watcher.say(f"An actor is killed: {why} Its shards go to others.")
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
                    position = ray.get(member.poll)
                except ray.exceptions.RayError:
                    if member.resources.is_scout:  # nobody else would notice, since it is asked for nothing
                        self._forget(member)
                        continue
                else:
                    before = member.position.rows if member.position else {}
                    for number in member.overtaken:
                        if position.rows.get(number) != before.get(number):
                            member.overtaken[number] = 0.0
                    if position != member.position:
                        member.position, member.quiet = position, 0.0
                member.poll = member.actor.position.remote()

    def _tell(self) -> None:
        """Tells the watcher what is done, wholly and partly."""
        footers = self._outcome.footers
        positions = [member.position for member in self._members if member.position]
        partly = {number: rows for position in positions for number, rows in position.rows.items()}
        counts = partly | {number: (footer.ok + footer.failed, footer.failed) for number, footer in footers.items()}
        done = sum(done for done, _ in counts.values())
        self._watcher.update(done, sum(failed for _, failed in counts.values()))
        started = sum(member.started is not None for member in self._members)
        self._meter.show(
            images=done,
            seconds=time.monotonic() - (self._begun or time.monotonic()),
            shards={"waiting": len(self._waiting), "out": len(self._left) - len(self._waiting), "done": len(footers)},
            actors={"asked for": len(self._members) - started, "at work": started},
        )

    def _say_what_is_missing(self) -> None:
        import ray

        members = [member for member in self._members if not member.resources.is_scout]
        if not members:
            self._watcher.say("Still waiting for the cluster's first node with a GPU or a CPU to run on.")
            return
        placed = sum(member.position is not None for member in members)
        if placed:
            self._watcher.say(f"{placed} of {len(members)} actors have their resources and are starting.")
            return
        wanted = members[0].resources
        free = ray.available_resources()
        self._watcher.say(
            f"Still waiting for resources: an actor asks for {wanted.gpu_share:g} GPUs and {wanted.cpus} CPUs, and the "
            f"cluster has {free.get('GPU', 0):g} GPUs and {free.get('CPU', 0):g} CPUs free."
        )


class _Meter:
    """What is seen of a run from outside: Ray's exporter gives it to Prometheus (docs/metrics.md)."""

    def __init__(self, run: str):
        from ray.util.metrics import Counter as Count
        from ray.util.metrics import Gauge

        def made(kind: Any, name: str, description: str, *tags: str) -> Any:
            metric = kind(f"flowers_batch_{name}", description, ("run", *tags))
            metric.set_default_tags({"run": run})
            return metric

        self._images = made(Count, "images", "Images of finished shards.", "status")
        self._seconds = made(Count, "stage_seconds", "Seconds of all actors in finished shards, by stage.", "stage")
        self.retries = made(Count, "retries", "Shards that were handed out again, since their actor died or stalled.")
        self.restarts = made(Count, "actor_restarts", "Actors that died or stalled.")
        self._done = made(Gauge, "images_done", "Images that are done, also those of shards that are not finished.")
        self._rate = made(Gauge, "images_per_second", "Images done, over the time since work began.")
        self._shards = made(Gauge, "shards", "Shards that wait, are out with actors, and are done.", "state")
        self._actors = made(Gauge, "actors", "Actors that were asked for, and that are at work.", "state")

    def count(self, done: Done) -> None:
        """Counts a finished shard."""
        for status, images in (("ok", done.footer.ok), ("failed", done.footer.failed)):
            if images:
                self._images.inc(images, {"status": status})
        for stage, seconds in done.stages.items():
            if seconds > 0:
                self._seconds.inc(seconds, {"stage": stage})

    def show(self, images: int, seconds: float, shards: dict[str, int], actors: dict[str, int]) -> None:
        """Shows how it goes."""
        self._done.set(images)
        self._rate.set(images / seconds if seconds else 0.0)
        for gauge, states in ((self._shards, shards), (self._actors, actors)):
            for state, number in states.items():
                gauge.set(number, {"state": state})


class _RemoteShardActor:
    """`ShardActor`, told by Ray what it was given; its log has a line of JSON for each thing that befalls a shard."""

    def __init__(self, factory: Factory, url: str, kind: str, resources: Resources):
        import ray

        context = ray.get_runtime_context()
        gpus, here = tuple(context.get_accelerator_ids().get("GPU", ())), context.get_node_id()
        threads = resources.cpus
        if gpus:
            node = next(node for node in ray.nodes() if node["NodeID"] == here)["Resources"]
            threads = max(1, int(node.get("CPU", 1) // (node["GPU"] * resources.sharing)))
        self._actor = ShardActor(factory, url, kind, threads, gpus, here)
        self._memory, self._is_started = _GpuMemory(url, gpus[0], str(context.get_actor_id())) if gpus else None, False

    def start(self) -> Started:
        started = self._actor.start()
        self._is_started = True  # TensorFlow is ready: it must not be asked for anything before
        return started

    def run(self, shard: Shard, condemned: Condemned, attempt: int) -> Done:
        begun = time.monotonic()
        _log("begun", shard, attempt=attempt, images=shard.images, condemned=len(condemned))
        try:
            done = self._actor.run(shard, condemned)
        except Exception as error:
            _log("failed", shard, attempt=attempt, error=first_line(error))
            raise
        seconds = {"seconds": time.monotonic() - begun} | done.stages
        counts = {"ok": done.footer.ok, "failed": done.footer.failed, "carried": done.carried}
        _log("done", shard, attempt=attempt, **counts, **{name: round(value, 3) for name, value in seconds.items()})
        return done

    def inspect(self, shard: Shard, seconds: float) -> Condemned:
        _log("inspected", shard, attempt=0, images=shard.images)
        return self._actor.inspect(shard, seconds)

    def position(self) -> Position:
        if self._memory and self._is_started:
            with contextlib.suppress(Exception):  # no work ends for want of a figure
                self._memory.show()
        return self._actor.position()

    position.__ray_concurrency_group__ = "position"  # type: ignore[attr-defined]


class _GpuMemory:
    """The memory that an actor's network takes of its GPU, beside the run's other metrics."""

    def __init__(self, run: str, gpu: str, actor: str):
        from ray.util.metrics import Gauge

        tags = {"run": run, "host": socket.gethostname(), "gpu": gpu, "actor": actor}
        self._gauge = Gauge("flowers_batch_gpu_memory_bytes", "Memory of GPUs that networks take.", tuple(tags))
        self._gauge.set_default_tags(tags)

    def show(self) -> None:
        """Shows it."""
        self._gauge.set(gpu_memory())


def _log(event: str, shard: Shard, **more: Any) -> None:
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, "shard": shard.number} | more
    sys.stderr.write(json.dumps(line) + "\n")  # in one piece: `print` lets another shard's line in before the line ends
    sys.stderr.flush()


def _cause_of(error: Any, what: str) -> Exception:
    """What a live actor raised, as it is to be told."""
    if isinstance(error.cause, FlowersError | OSError):
        return error.cause
    return RunError(f"{what} failed by a fault of the program: {error.cause!r}.")


def _cause(death: Exception) -> str:
    """What Ray says that an actor died of, as the end of a sentence."""
    _, known, cause = str(death).partition("The actor is dead because ")
    return cause.partition(".")[0] + "." if known else first_line(death)


def _living_nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _actor_environment(resources: Resources) -> dict[str, str]:
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    if weights := os.environ.get(WEIGHTS_ENVIRONMENT):
        environment[WEIGHTS_ENVIRONMENT] = weights
    if not resources.gpus:
        # An actor that asked for no GPU sees every GPU of its node otherwise.
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


@contextlib.contextmanager
def _connected(cluster: ClusterConfig) -> Iterator[bool]:
    """Joins the cluster that is named, or the one that the caller has joined; else starts a Ray of the run's own.

    Gives whether nodes may join: all but the last may have them.
    """
    import ray

    if ray.is_initialized():
        yield True
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        # A bare `ray.init()` would join whatever cluster runs on this machine.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options |= {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
    else:
        options["address"] = address
    # Ray would put its own handler of SIGTERM in the place of the command's, and end without a word.
    ray._private.utils.set_sigterm_handler = lambda handler: None
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"The Ray cluster at {address or 'this machine'} cannot be joined ({first_line(error)}): "
            "check --address, and that RAY_AUTH_MODE and the token here are the cluster's; or leave --address and "
            "RAY_ADDRESS out to run on this machine alone."
        ) from error
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints what it knows of dead actors, the last as it ends
        try:
            yield bool(address)
        finally:
            ray.shutdown()
